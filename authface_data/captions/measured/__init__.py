"""The captioner `measured`: tags from facts, no model. One facet per file; each says its rules, and where they fail."""
