"""Masked GRPO (paper, section 4.2): a policy improved by its own rollouts."""
