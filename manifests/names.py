"""Names of detectors, landmarks and captioners that authface.toml may contain.

The data half has a class for each; a test compares the lists.
"""

DETECTORS = ("retinaface", "retinaface-mobile")
LANDMARKS = ("dlib", "retinaface5")
CAPTIONERS = ("llava", "server", "measured")
CAPTION_ORIGINS = (*CAPTIONERS, "qwen")
"""The captioners, and the origin of captions that AuthFace-HQ brings along."""
