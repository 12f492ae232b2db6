"""The one line a user sees."""

from __future__ import annotations

import sys

import pytest

from wovr import cli
from wovr.errors import UserError, check_least, choose_from


def test_problem_and_remedy_become_one_line() -> None:
    error = UserError("data/x-000003.tar: episode 7:\n  actions   are NaN", "collect it\nagain")
    assert str(error) == "data/x-000003.tar: episode 7: actions are NaN; collect it again"


def test_without_a_remedy_nothing_is_appended() -> None:
    assert str(UserError("conf/bc.yaml: no such file")) == "conf/bc.yaml: no such file"


def test_a_number_that_is_too_small_is_said_with_the_least() -> None:
    for value, least in ((1, 1), (0, 0), (None, 1), (2.5, 2)):
        check_least("--episodes", value, least)
    with pytest.raises(UserError, match=r"^--episodes is 0; give 1 or more$"):
        check_least("--episodes", 0)
    with pytest.raises(UserError, match=r"^model\.near is -1; give 0 or more$"):
        check_least("model.near", -1, 0)


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("spatail", "did you mean spatial? choose from: spatial, object"),
        ("SPATIAL", "did you mean spatial? choose from: spatial, object"),
        ("kitchen", "choose from: spatial, object"),
        ("", "choose from: spatial, object"),
    ],
)
def test_a_word_that_is_no_choice_is_answered_with_the_nearest(word: str, remedy: str) -> None:
    assert choose_from(word, ["spatial", "object"]) == remedy


@pytest.fixture
def failing_verb(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A verb `fail` whose `main` raises the exception given as the fixture's parameter."""
    module = type(sys)("failing_verb")

    def main(args: list[str]) -> None:
        raise request.param

    module.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing_verb", module)
    monkeypatch.setitem(cli.VERBS, "fail", ("failing_verb", "fails"))


@pytest.mark.parametrize("failing_verb", [UserError("a.tar: truncated", "collect it again")], indirect=True)
@pytest.mark.usefixtures("failing_verb")
def test_user_error_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fail"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "wovr: error: a.tar: truncated; collect it again\n"


@pytest.mark.parametrize("failing_verb", [UserError("a.tar: truncated")], indirect=True)
@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
@pytest.mark.usefixtures("failing_verb")
def test_debug_shows_the_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "wovr: error: a.tar: truncated"


@pytest.mark.parametrize("failing_verb", [KeyboardInterrupt()], indirect=True)
@pytest.mark.usefixtures("failing_verb")
def test_an_interrupt_ends_in_one_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fail"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("failing_verb", [ZeroDivisionError("a defect")], indirect=True)
@pytest.mark.usefixtures("failing_verb")
def test_a_defect_is_not_disguised_as_a_user_error() -> None:
    with pytest.raises(ZeroDivisionError, match="a defect"):
        cli.main(["fail"])
