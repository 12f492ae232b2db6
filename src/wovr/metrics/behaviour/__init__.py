"""What happens in imagined frames: obedience, positions, actions, success, the order of rollouts."""
