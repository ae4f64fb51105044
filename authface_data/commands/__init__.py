"""Commands of the data half: parse, call, print. Nothing heavy is imported before a command runs."""
