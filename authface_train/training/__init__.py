"""The training loop and everything that it is built from."""
