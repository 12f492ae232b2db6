"""Training of the world model (paper, section 4.1)."""
