"""Scoring restored faces: pictures matched and measured, and what the numbers say of a method."""
