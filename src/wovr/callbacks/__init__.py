"""What happens around training: progress, checkpoints, seeding, stopping."""
