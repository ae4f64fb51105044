"""Training inputs: crops, latents, prompts and degradations, with counter-based randomness."""
