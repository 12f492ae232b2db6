"""LIBERO: the paper's benchmark (extra `libero`)."""
