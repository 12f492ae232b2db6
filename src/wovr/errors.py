"""The one exception a user sees: a line that names the file, the key and the remedy."""


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with status 2.

    Args:
        problem: What is wrong, naming the file and key (`data/x-000003.tar: episode 000017: ...`).
        remedy: What to do about it, an imperative clause; appended after a semicolon.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        text = f"{problem}; {remedy}" if remedy else problem
        super().__init__(" ".join(text.split()))
