"""Licences, credits and the right to be forgotten."""
