"""The world model (paper, section 4.1): frames in, the frames that actions produce out."""
