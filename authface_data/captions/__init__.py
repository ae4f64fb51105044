"""Captioners, by name: one file each, and one line here. A captioner is a stage over crops whose rows are captions."""

CAPTIONERS = {
    "measured": "authface_data.captions.measured:MeasuredStage",
    "llava": "authface_data.captions.llava:LlavaStage",
}
