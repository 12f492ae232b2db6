"""What ends a verb without a traceback: something the user can mend, told in one line, or a signal to end."""

from collections.abc import Iterable

from wovr.printing import printable

_FROM_WORKER = "Caught UserError in "


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with status 2.

    Args:
        problem: What is wrong, naming the file and key (`data/x-000003.tar: episode 000017: ...`).
        remedy: What to do about it, an imperative clause; appended after a semicolon.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        if problem.startswith(_FROM_WORKER):
            # torch's DataLoader raises a worker's exception anew, with the worker's traceback as its text.
            problem = problem.rpartition(f"{__name__}.{type(self).__name__}: ")[2]
        text = f"{problem}; {remedy}" if remedy else problem
        # Names and values out of data stand in the line too: they must not command the terminal it is printed in.
        super().__init__(printable(" ".join(text.split())))


def check_least(name: str, value: float | None, least: int = 1) -> None:
    """Refuse a number that is too small; None, for an option that is not given, is none.

    Args:
        name: What it is called where it is given, e.g. `--episodes` or `model.epochs`.
        value: The number.
        least: The least that it may be.

    Raises:
        UserError: It is smaller.
    """
    if value is not None and value < least:
        raise UserError(f"{name} is {value}", f"give {least} or more")


class Terminated(KeyboardInterrupt):
    """A signal told the process to end (SIGTERM, SIGHUP): what Ctrl-C does, with another exit status.

    Args:
        signal_number: Which one.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


def meant(word: str, choices: Iterable[str]) -> str:
    """The choice that a word which is none of them was meant to be; empty where none is like it."""
    from difflib import get_close_matches  # not for `wovr --help`

    by_letters = {choice.lower().strip("-"): choice for choice in choices}
    found = get_close_matches(word.lower().strip("-"), by_letters, n=1, cutoff=0.7)
    return by_letters[found[0]] if found else ""


def choose_from(word: str, choices: Iterable[str], more: str = "") -> str:
    """What to do about a word that is none of the choices: `did you mean fvd? choose from: sr, fvd`.

    Args:
        word: The word.
        choices: What there is.
        more: What else could be given, appended to the choices.
    """
    there = list(choices)
    guess = meant(word, there)
    return f"{f'did you mean {guess}? ' if guess else ''}choose from: {', '.join(there)}{more}"
