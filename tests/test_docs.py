"""What the documents, the Makefile and conf/ say is so. The site made of them: tests/test_site.py."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from wovr import cli
from wovr.commands.pace.extending import read_chain

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")])
}
README = PAGES["README.md"]
TESTS = {path: path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py"))}
MAKEFILE = (ROOT / "Makefile").read_text()
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))


def commands(text: str) -> list[str]:
    """Every `wovr VERB ...` that stands on lines of its own, continued lines joined, make's variables filled in.

    In a page they stand in blocks of `sh`, in the Makefile after a tab, in a YAML after `#   `.
    """
    values = dict(re.findall(r"^([A-Z]+)\s*\?=\s*(\S+)", MAKEFILE, re.MULTILINE))
    text = re.sub(r"\s*\\\n#?\s*", " ", text)
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    found = re.findall(r"^(?:\t|#   )(wovr [a-z]+\b.*)$", text, re.MULTILINE)
    found += re.findall(r"^(wovr [a-z]+\b.*)$", blocks, re.MULTILINE)
    return [re.sub(r"\$\((\w+)\)", lambda name: values[name.group(1)], line) for line in found]


COMMANDS = sorted(
    {line for text in (*PAGES.values(), MAKEFILE, *(path.read_text() for path in CONFIGS)) for line in commands(text)}
)


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as {"model.init_args.lr": 0.001, ...}."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {key: leaf for name, item in value.items() for key, leaf in leaves(item, f"{prefix}.{name}").items()}


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and error of `wovr WORDS`."""
    try:
        status = cli.main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_commands_are_found() -> None:
    assert {command.split()[1] for command in COMMANDS} == set(cli.VERBS)


def test_no_command_in_a_page_is_overlooked() -> None:
    """A line that begins with `wovr VERB --` stands in a block of `sh`, where it is tried."""
    loose = re.compile(rf"^\s*wovr (?:{'|'.join(cli.VERBS)}) .*--", re.MULTILINE)
    for page, text in PAGES.items():
        outside = re.sub(r"^```sh\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        assert loose.findall(outside) == [], page


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_the_documents_is_accepted(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    # --print_config stops after parsing, which checks every option, its type and the classes a YAML names.
    status, out, err = run([*words, "--print_config"], capsys)
    assert status == 0, err
    assert isinstance(yaml.safe_load(out), dict)


def test_a_wrong_command_would_be_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, _ = run(["collect", "--print_config", "--policy", "expert", "--sweet", "spatial"], capsys)
    assert status == 2


def test_readme_and_makefile_name_the_same_demo() -> None:
    demo = [command for command in commands(MAKEFILE) if "runs/demo" in command]
    assert len(demo) == 1
    assert [command for command in commands(README) if "runs/demo" in command] == demo


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_says_how_it_is_used_and_parses(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(path.relative_to(ROOT))
    used = [shlex.split(command)[1:] for command in commands(path.read_text()) if name in command.split()]
    assert used, f"{name} has no comment with the command that uses it: #   wovr fit --config {name} ..."
    verb, *words = used[0]
    status, out, err = run([verb, *words, "--print_config"], capsys)
    assert status == 0, err
    given, understood = leaves(read_chain(path)), leaves(yaml.safe_load(out))  # a chain may extend another
    assert {key: understood.get(key, "absent") for key in given} == given


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_a_page_exists(page: str) -> None:
    missing = [
        path
        for path in paths_in(PAGES[page])
        if not path.startswith(("runs/", "data/", "weights/"))
        and not any((ROOT / base / path).exists() for base in ("", "src/wovr"))
    ]
    assert missing == []


def paths_in(text: str) -> list[str]:
    """Paths of files and folders that a page names in backticks."""
    return re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py|\.yaml|\.md)?)`", text)


@pytest.mark.parametrize("page", PAGES)
def test_every_module_and_test_that_a_page_names_exists(page: str) -> None:
    missing = []
    for name in re.findall(r"`(wovr(?:\.[a-z_0-9]+)+)", PAGES[page]):
        path = ROOT / "src" / name.replace(".", "/")
        if not path.is_dir() and not path.with_suffix(".py").is_file():
            missing.append(name)
    for file, name in re.findall(r"`(?:(?:tests/)?((?:[\w/]+/)?test_\w+\.py))?(?:::)?(test_\w+)?`", PAGES[page]):
        holding = [path for path in TESTS if str(path).endswith(f"/{file}")] if file else list(TESTS)
        if (file or name) and not any(f"def {name}" in TESTS[path] for path in holding):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_the_map_from_the_paper_names_paths() -> None:
    assert len(paths_in(PAGES["docs/concepts/paper.md"])) > 30


def anchors(text: str) -> set[str]:
    """What the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_in_a_page_leads_somewhere(page: str) -> None:
    assert broken_links(page, PAGES[page]) == []


def broken_links(page: str, text: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target.read_text()))):
            broken.append(link)
    return broken


def test_a_broken_link_would_be_noticed() -> None:
    text = "[a](docs/results.md#suites) [b](docs/nowhere.md) [c](docs/results.md#nowhere) [d](https://example.org)"
    assert broken_links("README.md", text) == ["docs/nowhere.md", "docs/results.md#nowhere"]


def test_the_readme_is_read_in_a_sitting() -> None:
    assert len(README.splitlines()) <= 250


def test_make_help_lists_every_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\S+) +\S", listed, re.MULTILINE)) == set(phony.split())
    named = [target for text in PAGES.values() for target in re.findall(r"`make ([a-z-]+)", text)]
    assert [target for target in named if target not in phony.split()] == []


def test_a_commit_is_checked_by_the_tools_that_make_lint_runs() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local", "nothing is fetched but the packages of hooks"
    system = [hook["entry"].split()[0] for hook in repository["hooks"] if hook["language"] == "system"]
    recipe = MAKEFILE[MAKEFILE.index("\nlint:") : MAKEFILE.index("\nformat:")]
    assert system == re.findall(r"^\t(\S+)", recipe, re.MULTILINE)
    pinned = [package for hook in repository["hooks"] for package in hook.get("additional_dependencies", [])]
    assert pinned
    assert [package for package in pinned if "==" not in package] == []


def test_the_environment_in_its_page_works(tmp_path: Path) -> None:
    page = PAGES["docs/howto/own_environment.md"]
    [source] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my_robot.py").write_text(source)
    [command] = [command for command in commands(page) if "my_robot:" in command]
    script = Path(sys.executable).with_name("wovr")  # unlike `python -m wovr` it does not start in the current folder
    result = subprocess.run(
        [str(script), *shlex.split(command)[1:], "--num_envs", "2", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "20 episodes" in result.stdout
    assert "SR 1.000" in result.stdout
