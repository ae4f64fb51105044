"""Scores of aligned crops: artefact measures (one module each) and IQA metrics of pyiqa.

A measure is a module with a `VERSION`, which is stored with every score, and a function
`score(crop) -> float`. The crop is (size, size, 3) uint8 sRGB. A module with `USES_QUAD` also takes
the corners of the crop's quad.
"""

ARTEFACTS = {
    "pepper": "authface_data.quality.pepper",
    "noise": "authface_data.quality.noise",
    "sharpness": "authface_data.quality.sharpness",
    "skin": "authface_data.quality.skin",
    "jpeg": "authface_data.quality.jpeg",
    "banding": "authface_data.quality.banding",
    "exposure": "authface_data.quality.exposure",
    "detail": "authface_data.quality.detail",
    "photographic": "authface_data.quality.photographic",
}
"""Measures of image defects, by name. Their scores lie between 0 (worst) and 1 (best)."""

ATTRIBUTES = {
    "skin_tone": "authface_data.quality.skin_tone",
    "light": "authface_data.quality.light",
    "lightness": "authface_data.quality.lightness",
}
"""Measures without good or bad values, which the balance report counts. Their units differ."""

MEASURES = ARTEFACTS | ATTRIBUTES
