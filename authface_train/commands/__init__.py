"""Commands of the training half: parse, call, print. Nothing heavy is imported before a command runs."""
