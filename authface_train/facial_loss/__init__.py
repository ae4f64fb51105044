"""The time-aware latent facial feature loss of Stage II (AuthFace, Eq. 3 and 4)."""
