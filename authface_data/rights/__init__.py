"""Licences and credits of photographs, and forgetting photographs on request."""
