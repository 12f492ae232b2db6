"""The examples run, at a small size, and stay short enough to be read at once."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import wovr

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, imported as when its file is run: from its own folder, in another working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module(request.param)
    for name in EXAMPLES:
        sys.modules.pop(name, None)


def test_there_are_three() -> None:
    assert EXAMPLES == ["own_environment", "rl_in_imagination", "world_model"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_says_how_it_is_run(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    assert len(text.splitlines()) < 100
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.parametrize("example", ["own_environment"], indirect=True)
def test_own_environment(example: ModuleType) -> None:
    rates = example.main(episodes=8)
    assert rates["expert"] == 1.0
    assert rates["random"] < 0.5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("example", ["world_model"], indirect=True)
def test_world_model(example: ModuleType) -> None:
    scores = example.main(Path("out"), episodes=60, steps=150)
    assert scores["imagined"] > scores["first frame"] + 1  # dB; 11 of them at full size
    model = wovr.load_world_model("out/last.ckpt")
    assert (model.action_dim, model.chunk) == (2, 8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("example", ["rl_in_imagination"], indirect=True)
def test_rl_in_imagination(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = example.main(Path("out"), size=0.5)
    assert 0.2 < before < after - 0.1  # 50 points at full size
    assert f"cloned {before:.0%}, after RL in imagination {after:.0%}" in capsys.readouterr().out
    assert wovr.load_policy("out/improved.ckpt").action_dim == 1
