"""`python -m wovr`, which is how one stage starts another."""

from wovr.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
