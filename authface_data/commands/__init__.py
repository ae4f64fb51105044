"""Commands of the data half: parse, call, print. Heavy imports happen inside the commands."""
