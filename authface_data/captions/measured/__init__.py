"""The captioner `measured`: tags computed from pixels, landmarks and metadata, without a model.

Each module measures one subject, documents the rule behind every tag, and names the cases in which
the rule fails. `stage.py` runs all measures on a face.
"""
