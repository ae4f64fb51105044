"""What a captioning model is asked: two short questions beat one long one."""

from __future__ import annotations

from manifests.fingerprint import fingerprint

SEMANTIC = (
    "List short tags for the person in this photograph, separated by commas: kind of person, gender, age group, clothes, hair, "
    "accessories, background. Tags only: no sentences, no prepositions, no adverbs."
)
PHOTOGRAPHIC = (
    "List short tags for how this portrait was photographed, separated by commas: expression, gaze, skin texture, makeup, "
    "lighting, focus, view, framing, style. Tags only: no sentences, no prepositions, no adverbs."
)


def prompt_hash() -> str:
    """Names the present wording."""
    return fingerprint(semantic=SEMANTIC, photographic=PHOTOGRAPHIC)
