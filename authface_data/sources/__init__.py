"""Where photographs come from: one file per source."""
