"""The two training stages: the face prior and the restorer."""
