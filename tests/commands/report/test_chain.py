"""The report: its page, its Markdown, and what it says where nothing was measured."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from wovr.commands.pace.budget import count_budget
from wovr.commands.pace.stages import Stage, Surroundings, read_stages
from wovr.commands.report.chain import PAPER, report_values, write_report
from wovr.commands.report.page import (
    Grid,
    Paragraph,
    Picture,
    Pictures,
    Section,
    Videos,
    write_html,
    write_markdown,
)
from wovr.commands.report.sections import headline, make_sections
from wovr.errors import UserError
from wovr.functional.intervals import wilson_interval
from wovr.runs import write_json

SECTIONS = [
    Section(
        "One <b>",
        [
            Paragraph("a & b"),
            Grid(("name", "value "), [["x|y", "1"], ["<i>", "2"]], strong=[1]),
            Grid(("command",), [["wovr <fit>"]], code=[0]),
            Pictures([Picture("p.svg", b"<svg/>", "a 'picture'"), Picture("q.svg", b"<svg></svg>", "bars")]),
            Paragraph("not there", missing=True),
        ],
    )
]


def counts(successes: int, episodes: int) -> dict[str, Any]:
    interval = wilson_interval(successes, episodes)
    return {
        "episodes": episodes, "successes": successes, "success_rate": successes / episodes, "low": interval.low,
        "high": interval.high,
    }  # fmt: skip


def make_chain() -> list[Stage]:
    args = {"policy": "p", "episodes": 100}
    return read_stages(
        [
            {"name": "demos", "command": "collect", "args": {"episodes": 5}},
            {"name": "base", "command": "evaluate", "args": args, "title": "base policy"},
            {"name": "better", "command": "evaluate", "args": args, "title": "better policy"},
            {"name": "later", "command": "evaluate", "args": args, "title": "later policy"},
        ]
    )


def write_rate(folder: Path, successes: int, **values: Any) -> None:
    own = counts(successes, 100)
    task = {"index": 3, "name": "t", "instruction": "push <it>", **own}
    outcomes = [[3, state, 12 if state < successes else None] for state in range(100)]
    suite = {**own, "tasks": [task], "outcomes": outcomes}
    write_json(folder / "metrics.json", {"sr": {"all": own, "suites": {"goal": suite}, **values}})
    write_json(folder / "DONE", {})


def test_a_report_of_half_a_chain(tmp_path: Path) -> None:
    chain, given = make_chain(), Surroundings(tmp_path, "goal", 3)
    write_rate(tmp_path / "base", 40)
    write_rate(tmp_path / "better", 70)
    budget = count_budget(chain, 10, {name: tmp_path / name for name in ("base", "better")})
    path = write_report(chain, given, budget, changed=["better"])
    values = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["points"] for entry in values["success"]] == [0.0, 30.0]
    assert values["success"][0]["points_interval"] == [0, 0]
    low, high = values["success"][1]["points_interval"]  # 30 states of 100 differ
    assert (low, high) == (pytest.approx(30 - 9, abs=1.5), pytest.approx(30 + 9, abs=1.5))
    assert headline(values) == "base policy 40.0 % (30.9 - 49.8); better policy 70.0 % (60.4 - 78.1)."
    missing = values["missing"]
    assert missing[:2] == ["demos: stage demos has not been run", "later policy: stage later has not been run"]
    assert "better: finished with another configuration or other inputs than now" in missing
    assert "learning curves: no stage of this chain measures it" in missing
    assert values["paper"]["WoVR"] == {"spatial": 81.5, "object": 82.0, "goal": 77.5, "long": 35.8, "average": 69.2}
    page, text = path.read_text(), (tmp_path / "report.md").read_text()
    for line in missing:
        assert line in page
        assert line in text
    assert "push &lt;it&gt;" in page
    assert "| goal | 3 | push &lt;it&gt; | 40.0 (30.9 - 49.8) | 70.0 (60.4 - 78.1) |" in text
    assert "| **here: better policy** |  |  | **70.0** |  |  |" in text
    assert "No policy was optimised." in text
    assert "3 stages" not in text
    assert "2 stages are not finished" in text


def test_policies_are_compared_at_temperatures_of_one_kind_and_on_the_same_states(tmp_path: Path) -> None:
    chain, given = make_chain(), Surroundings(tmp_path, "goal", 3)
    tried = [{"temperature": value, **counts(50, 100)} for value in (0.0, 1.0)]
    write_rate(tmp_path / "base", 40, temperature=1.0, tried=[])
    write_rate(tmp_path / "better", 50, temperature=0.0, tried=tried)
    write_rate(tmp_path / "later", 70, temperature=0.0, tried=tried)
    stored = json.loads((tmp_path / "later" / "metrics.json").read_text())
    names = ("base", "better", "later")

    def report() -> tuple[list[Any], str]:
        write_report(chain, given, count_budget(chain, 10, {name: tmp_path / name for name in names}))
        values = json.loads((tmp_path / "metrics.json").read_text())
        return values["success"], (tmp_path / "report.md").read_text()

    success, text = report()
    assert [entry["over"] for entry in success] == ["base", "better", "better"]
    assert [entry["points"] for entry in success] == [0, 0, 20]
    assert "| 0 (chosen of 0, 1) | 100 | 70.0 |" in text
    stored["sr"]["suites"]["goal"]["outcomes"][7][1] = 1007
    write_json(tmp_path / "later" / "metrics.json", stored)
    success, text = report()
    assert success[2]["points_interval"] is None
    assert "| +20.0 | other states |" in text


def test_a_report_of_nothing_invents_nothing(tmp_path: Path) -> None:
    chain, given = make_chain(), Surroundings(tmp_path, "goal", 3)
    values = report_values(chain, {}, given, count_budget(chain, None, {}))
    found = make_sections(values, {})
    text = str(found)
    assert headline(values) == "No success rate has been measured."
    assert text.count("missing=True") >= 7
    assert values["budget"]["peak_memory"] is None
    assert "not measured" in text


def test_the_averages_of_the_paper_are_those_of_its_suites() -> None:
    for row in PAPER.values():
        suites = [rate for name, rate in row.items() if name != "average"]
        # WMPO's is printed as 46.2, and is 46.03.
        assert sum(suites) / len(suites) == pytest.approx(row["average"], abs=0.18)


def test_a_page_needs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"MP4")
    videos = Section("Videos", [Videos([(tmp_path / "v.mp4", "it moves")])])
    write_html(tmp_path / "r.html", "Title", [*SECTIONS, videos])
    page = (tmp_path / "r.html").read_text()
    assert "<h2>One &lt;b&gt;</h2>" in page
    assert '<td class="n">1</td>' in page
    assert '<tr class="strong"><td>&lt;i&gt;</td>' in page
    assert "<code>wovr &lt;fit&gt;</code>" in page
    assert """aria-label="a &#39;picture&#39;"><svg/><figcaption>""" in page
    assert 'autoplay loop muted playsinline controls src="data:video/mp4;base64,TVA0"' in page
    assert '<p class="missing">not there</p>' in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "prefers-color-scheme: dark" in page
    with pytest.raises(UserError, match="a video of the report cannot be read"):
        write_html(tmp_path / "r.html", "Title", [Section("x", [Videos([(tmp_path / "none.mp4", "")])])])
    assert (tmp_path / "r.html").read_text() == page


def test_markdown_keeps_its_pictures_beside_it(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    videos = Section("Videos", [Videos([(tmp_path / "stage" / "v.mp4", "it moves")])])
    write_markdown(tmp_path / "r.md", "Title", [*SECTIONS, videos], tmp_path / "pictures")
    text = (tmp_path / "r.md").read_text()
    assert "| x\\|y | 1 |\n| **&lt;i&gt;** | **2** |" in text
    assert "| name | value |\n| --- | ---: |" in text
    assert "![a 'picture'](pictures/p.svg)\n![bars](pictures/q.svg)\n" in text
    assert "- [it moves](stage/v.mp4)" in text
    assert (tmp_path / "pictures" / "p.svg").read_bytes() == b"<svg/>"


def test_a_report_asks_for_nothing_and_obeys_no_name(tmp_path: Path) -> None:
    """Of a whole report: names of tasks, policies and files that would be markup, and every address in it."""
    hostile = "</td><script src=//evil.example/x.js></script><img src=x onerror=alert(1)> {{ 7 * 7 }} $x^2$"
    chain, given = make_chain(), Surroundings(tmp_path, "goal", 3)
    write_rate(tmp_path / "base", 40)
    stored = json.loads((tmp_path / "base" / "metrics.json").read_text())
    stored["sr"]["suites"]["goal"]["tasks"][0]["instruction"] = hostile
    stored["sr"]["suites"][hostile] = stored["sr"]["suites"].pop("goal")
    write_json(tmp_path / "base" / "metrics.json", stored)
    chain[1] = dataclasses.replace(chain[1], title=hostile)
    write_report(chain, given, count_budget(chain, 10, {"base": tmp_path / "base"}))
    page = (tmp_path / "report.html").read_text()
    seen = Tags()
    seen.feed(page)
    assert not {"script", "img", "link", "iframe", "object", "base"} & set(seen.tags)
    assert not any(name.startswith("on") for name, _ in seen.attributes)
    linked = [value for name, value in seen.attributes if name in ("src", "href", "xlink:href", "data", "action")]
    assert all(str(value).startswith(("data:", "#")) for value in linked)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "{{ 7 * 7 }}" in page
    assert seen.texts.count(hostile) >= 5
    assert (tmp_path / "report.md").read_text().count("<script") == 0


class Tags(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    chain, given = make_chain(), Surroundings(tmp_path, "goal", 3)
    write_rate(tmp_path / "base", 40)
    pages = []
    for _ in range(2):
        write_report(chain, given, count_budget(chain, 10, {"base": tmp_path / "base"}))
        pages.append([(tmp_path / name).read_bytes() for name in ("report.html", "report.md", "report/success.svg")])
    assert pages[0] == pages[1]


def test_only_who_draws_imports_what_draws() -> None:
    modules = ("pace.main", "evaluate.main", "evaluate.world_model", "evaluate.reward", "fit", "rl")
    script = "import sys, importlib\n" + "".join(f"importlib.import_module('wovr.commands.{m}')\n" for m in modules)
    # matplotlib itself is imported by torchmetrics wherever it is installed, whether or not anybody draws.
    script += "sys.exit('wovr.commands.report.charts' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
