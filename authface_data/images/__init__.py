"""Picture files: opening, colour, metadata, hashes and encoding."""
