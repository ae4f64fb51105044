"""The time-aware latent facial feature loss: weight over time, regions, discriminators, and the loss itself."""
