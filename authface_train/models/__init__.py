"""Base models: SDXL, the tiny models, the pixel unshuffle autoencoder."""
