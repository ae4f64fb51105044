"""What runs during training besides training itself: previews, validation, audits."""
