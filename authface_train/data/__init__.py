"""What training reads: crops, latents, prompts, degradations; every draw from counters."""
