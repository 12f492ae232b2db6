"""Backbones of the world model behind one contract: an answer for noisy latents, given time and actions."""
