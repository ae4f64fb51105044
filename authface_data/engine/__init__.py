"""Runs stages: skips what is done, shows progress, records what fails, survives being killed."""
