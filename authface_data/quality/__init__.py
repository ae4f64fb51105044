"""Scores of aligned crops: our own artefact measures (one per file, and one line here) and IQA metrics by pyiqa.

An artefact measure is a module with a `VERSION` and `score(crop) -> float`: (H, W, 3) uint8 sRGB to 0 worst .. 1 best.
"""

ARTEFACTS = {
    "pepper": "authface_data.quality.pepper",
    "sharpness": "authface_data.quality.sharpness",
    "exposure": "authface_data.quality.exposure",
}
