"""wovr: post-train a robot policy by reinforcement learning inside a learned video world model."""

__version__ = "0.1.0"
