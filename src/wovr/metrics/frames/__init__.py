"""What imagined frames look like beside real ones."""
