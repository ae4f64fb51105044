"""`authface serve`: a workspace in a browser on this computer."""
