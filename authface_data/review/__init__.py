"""Review of faces by people: export as a table or page, import of decisions, agreement."""
