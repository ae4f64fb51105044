"""Captions of faces: captioners, and what is done with their answers.

Each captioner is a stage whose rows are captions (captioners.py). Answers are parsed into tags
(normalise_tags.py, vocabulary.py) and composed into captions (compose.py, recompose.py). Tags can
be counted (coverage.py) and edited (tag_edits.py), and captions exported (export.py).
"""
