"""Uses the data: the face prior (Stage I), the restorer (Stage II), restoring with it."""
