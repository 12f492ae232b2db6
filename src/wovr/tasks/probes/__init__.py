"""Training of the networks that measure."""
