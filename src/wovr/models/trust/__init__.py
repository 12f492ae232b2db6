"""Trust: how far a chunk of an imagined rollout may be believed, from its frames and actions alone."""
