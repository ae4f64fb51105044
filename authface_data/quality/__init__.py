"""Scores of aligned crops: our own measures (one per file, and one line here) and IQA metrics by pyiqa.

An artefact measure is a module with a `VERSION` and `score(crop) -> float`: (H, H, 3) uint8 sRGB to 0 worst .. 1 best. One that
has `USES_QUAD` is given the quad as well.
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
}

# Not good or bad, but told over the set in the balance report: the same, in units of their own.
ATTRIBUTES = {
    "skin_tone": "authface_data.quality.skin_tone",
    "light": "authface_data.quality.light",
    "lightness": "authface_data.quality.lightness",
}
MEASURES = ARTEFACTS | ATTRIBUTES
