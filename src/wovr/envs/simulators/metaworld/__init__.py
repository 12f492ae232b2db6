"""Meta-World (extra `metaworld`)."""
