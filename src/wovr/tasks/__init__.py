"""LightningModules: loss, optimiser and logging of each model."""
