"""Helpers shared by both halves that are not part of the manifest contract."""
