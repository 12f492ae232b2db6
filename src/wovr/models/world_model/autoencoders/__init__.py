"""Autoencoders: four frames to one latent frame and back."""
