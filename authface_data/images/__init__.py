"""Opening picture files, colour, metadata and location."""
