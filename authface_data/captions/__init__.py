"""Captioners: each a stage over crops whose rows are captions, in a file of its own. authface_data/commands/caption.py names them."""
