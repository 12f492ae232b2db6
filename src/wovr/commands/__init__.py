"""One file a verb, each with `main(args) -> None`."""
