"""The world model and the success classifier as an environment (paper, section 4.2)."""
