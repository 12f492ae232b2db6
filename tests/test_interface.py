"""The interface for one's own programs: what it names, what it costs, what type checkers see of it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wovr
from tests.data.synthetic import make_episode
from wovr.errors import UserError

SOURCE = Path(wovr.__file__)


def test_it_names_at_most_a_dozen_things_and_documents_each() -> None:
    assert len(wovr.__all__) <= 12
    assert wovr.__all__ == sorted(wovr.__all__)
    rows = re.findall(r"^\| (`.*?) \|", inspect.getdoc(wovr) or "", re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == wovr.__all__
    assert set(wovr.__all__) <= set(dir(wovr))
    for name in wovr.__all__:
        assert inspect.getdoc(getattr(wovr, name)), name


def test_type_checkers_see_what_is_there() -> None:
    [block] = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == wovr._MODULES
    for name, module in wovr._MODULES.items():
        assert getattr(wovr, name) is getattr(sys.modules[module], name)


def imported_by(script: str) -> set[str]:
    """Modules of wovr, and torch, that a program has imported at its end."""
    script += "\nimport sys; print(*(name for name in sys.modules if name.split('.')[0] in ('wovr', 'torch')))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_it_imports_nothing_else() -> None:
    assert imported_by("import wovr; dir(wovr); wovr.__version__") == {"wovr"}
    names = "EpisodeStore, save_episodes, SimulatorEnv, make_env, make_actor, plan_episodes, roll_out, TaskInfo"
    assert "torch" not in imported_by(f"from wovr import {names}")


def test_a_name_that_does_not_exist_is_told_in_pythons_words() -> None:
    with pytest.raises(AttributeError, match="module 'wovr' has no attribute 'load_polcy'"):
        _ = wovr.load_polcy  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from wovr import load_polcy")


def test_saved_episodes_are_read_back(tmp_path: Path) -> None:
    episodes = [make_episode(number, 10, (16, 16)) for number in range(5)]
    written = wovr.save_episodes(tmp_path / "mine", iter(episodes), shard_episodes=2)
    assert (written["episodes"], len(written["shards"])) == (5, 3)
    store = wovr.EpisodeStore(tmp_path / "mine")
    assert [entry.key for entry in store.entries] == [episode.key for episode in episodes]
    np.testing.assert_array_equal(store.actions(3), episodes[3].actions)
    with pytest.raises(UserError, match="mine: holds episodes already; choose another folder"):
        wovr.save_episodes(tmp_path / "mine", episodes)
    with pytest.raises(UserError, match="shard_episodes is 0"):
        wovr.save_episodes(tmp_path / "other", episodes, shard_episodes=0)


def test_an_environment_says_what_is_missing() -> None:
    with pytest.raises(UserError, match="environment 'imagined' without reward; give reward"):
        wovr.make_env("imagined", world_model="w.ckpt", data="d")  # type: ignore[call-overload]
    with pytest.raises(UserError, match="world_model of environment 'tabletop'"):
        wovr.make_env("tabletop", world_model="w.ckpt")
