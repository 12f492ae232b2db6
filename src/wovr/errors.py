"""The one exception a user sees: a line that names the file, the key and the remedy."""

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
        super().__init__(" ".join(text.split()))
