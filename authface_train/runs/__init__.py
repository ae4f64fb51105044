"""Run folders: checkpoints, saving, lineage, model cards, export."""
