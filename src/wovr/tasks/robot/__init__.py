"""Training that needs to know the robot: its own model, and memories imagined on a wrong guess of it."""
