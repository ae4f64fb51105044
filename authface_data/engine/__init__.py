"""The engine runs stages over inputs: it skips finished work, commits results and records failures."""
