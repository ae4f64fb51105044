"""The engine runs stages over inputs: it skips finished work, commits and records failures."""
