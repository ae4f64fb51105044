"""Restoration of degraded faces and whole photographs with a trained model."""
