"""Captioners, and everything that follows from their answers.

Each captioner is a stage whose rows are captions (captioners.py). Answers are parsed into tags
(normalise_tags.py, vocabulary.py) and composed into captions (compose.py, recompose.py), which can
be counted, edited and exported (coverage.py, tag_edits.py, export.py).
"""
