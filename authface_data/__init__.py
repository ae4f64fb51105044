"""Makes the data: sources, faces, quality, captions, reports."""
