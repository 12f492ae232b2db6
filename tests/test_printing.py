"""Texts out of data in a terminal, in Markdown and in HTML."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table

from tests.data.synthetic import make_episode
from wovr.cli import main
from wovr.commands.evaluate.success_rate import Outcome, count_suite, success_table
from wovr.commands.report.charts import Bar, bar_chart
from wovr.commands.report.page import Grid, Paragraph, Picture, Pictures, Section, write_html, write_markdown
from wovr.commands.terminal import PlainConsole, progress_bar
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.envs.progress import ActingProgress
from wovr.errors import UserError
from wovr.printing import markdown, markdown_code, printable
from wovr.types import TaskInfo

HOSTILE = [
    "put the cup on the [/red] plate",
    "[bold red]open[/] the [link=https://x]drawer[/link] :smiley:",
    "clear \x1b[2J\x1b]0;title\x07 the table",
    "erase\rthe line\b\x00",
    "lone surrogate \ud800",
    "turned \u202eabout",
    "first line\nsecond line",
    "<script>alert(1)</script> & <b>bold</b>",
    "a | b | `code` **bold** _it_ [link](http://x) ![p](x.png)",
    "# no heading",
    "{task.description} %s {0}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert all(letter.isprintable() for letter in shown)
    assert printable(shown) == shown
    shown.encode()


def test_letters_of_every_script_stay() -> None:
    text = "Stelle die Schüssel auf den Teller, 把碗放在盘子上, ضع الوعاء 🥣 [0]"
    assert printable(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_titles_and_lines_show_it_as_it_is(text: str) -> None:
    console = PlainConsole(file=StringIO(), width=300, force_terminal=True, color_system=None)
    table = Table("instruction", title=text)
    table.add_row(text)
    console.print(table)
    console.print(printable(text))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    for line in text.split("\n"):
        assert said.count(printable(line)) == 3
    assert "\x1b" not in said


def test_the_success_table_shows_instructions_as_they_are() -> None:
    tasks = [TaskInfo("s", index, f"t{index}", text, 10, 1) for index, text in enumerate(HOSTILE)]
    counts = count_suite(tasks, [Outcome(index, 0, None) for index in range(len(tasks))])
    console = PlainConsole(file=StringIO(), width=300)
    console.print(success_table({"suites": {"[/s]": counts}, "all": counts, "tried": []}))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(printable(text.split("\n")[0]) in said for text in HOSTILE)
    assert "[/s]" in said


@pytest.mark.parametrize("text", HOSTILE)
def test_bars_show_their_labels_as_they_are(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(bar: Progress) -> str:
        console = PlainConsole(file=StringIO(), width=300, color_system=None)
        console.print(bar.get_renderable())
        return console.file.getvalue()  # type: ignore[attr-defined]

    assert printable(text) in said(ActingProgress(text, 3)._bar)
    from wovr.commands import terminal

    monkeypatch.setattr(terminal, "progress_bar", lambda *columns: kept.append(progress_bar(*columns)) or kept[-1])
    kept: list[Progress] = []
    with terminal.episode_progress(text, 3):
        assert printable(text) in said(kept[0])


@pytest.mark.parametrize("text", HOSTILE)
def test_the_error_line_commands_no_terminal(text: str) -> None:
    assert all(letter.isprintable() for letter in str(UserError(f"x.tar: instruction {text}", "mend it")))


def test_inspect_shows_whatever_an_instruction_holds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    episodes = []
    for index, text in enumerate(HOSTILE):
        if "\ud800" in text:
            continue
        episode = make_episode(index, 5, (16, 16))
        episode.meta.instruction, episode.meta.task, episode.meta.policy = text, index, text
        episodes.append(episode)
    write_shard(shard_path(tmp_path, "x", 0), episodes)
    finish_dataset(tmp_path)
    assert main(["data", "inspect", str(tmp_path)]) == 0
    shown = capfd.readouterr()
    assert "Traceback" not in shown.err
    assert "[/red]" in shown.out
    assert "\x1b" not in shown.out


@pytest.mark.parametrize("text", HOSTILE)
def test_the_report_shows_it_as_it_is(text: str, tmp_path: Path) -> None:
    bars = bar_chart([Bar(text, 0.5, 0.4, 0.6)])
    rows = [[text, text]]
    blocks = [
        Paragraph(text),
        Pictures([Picture("a b.svg", bars, text)]),
        Grid((text, f"{text} "), rows, strong=[0], code=[1]),
    ]
    sections = [Section(text, blocks)]
    write_html(tmp_path / "report.html", text, sections)
    write_markdown(tmp_path / "report.md", text, sections, tmp_path / "report")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    if text.isascii() and text.isprintable() and not set(text) & set("<>&"):
        assert page.count(text) >= 8
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "<" not in "".join(lines).replace("`", "") or "<script" in text  # only inside code
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 3
    assert all(line.replace("\\|", "").count("|") == 3 for line in table)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b_c", "a_b_c"),  # inside a word it stands for itself
        ("_it_", "\\_it\\_"),
        ("[x](y)", "\\[x\\](y)"),
        ("<img>", "&lt;img&gt;"),
        ("- a list", "\\- a list"),
        ("3.5 cm", "3.5 cm"),
        ("1. one", "1\\. one"),
        ("a | b", "a \\| b"),
    ],
)
def test_markdown(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_code_with_backticks_stays_code() -> None:
    assert markdown_code("a `b` ``c`` |") == "``` a `b` ``c`` \\| ```"
