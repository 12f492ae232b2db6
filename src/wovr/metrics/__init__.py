"""How good imagined rollouts are: torchmetrics over rollouts beside the real episodes whose actions they replay."""
