"""Captioners, each a stage over crops whose rows are captions; and what is made of what they say."""
