"""Memory estimation and dry runs."""
