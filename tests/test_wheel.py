"""The wheel outside the checkout: built, installed beside its packages, used in an empty folder. No network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it must succeed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    options: dict[str, Any] = {"cwd": cwd, "env": kept | environment, "text": True, "check": False}
    ended = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, *build, "--wheel-dir", folder, folder / "source", cwd=folder)
    [built] = folder.glob("wovr-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The bin/ of an environment that has the wheel, and sees the packages that the tests run with."""
    environment = wheel.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=wheel.parent)
    python = environment / "bin" / "python"
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=wheel.parent).strip())
    (own / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed")
    run(python, *install, wheel, cwd=wheel.parent)
    assert Path(run(python, "-c", "import wovr; print(wovr.__file__)", cwd=wheel.parent).strip()).is_relative_to(own)
    return environment / "bin"


def test_it_holds_the_configurations_and_nothing_of_the_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        contents = {name: archive.read(name) for name in names if name.startswith("wovr/conf/")}
    assert contents == {f"wovr/{path.relative_to(ROOT)}": path.read_bytes() for path in (ROOT / "conf").rglob("*.yaml")}
    templates = {f"wovr/commands/report/templates/report.{kind}.jinja" for kind in ("html", "md")}
    assert {"wovr/py.typed", "wovr/cli.py", *templates} <= names
    assert {name.split("/")[0] for name in names} == {"wovr", wheel.name.split("-py")[0] + ".dist-info"}


def test_it_collects_and_trains_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    few = ("--episodes", "4", "--tasks", "0", "--num_envs", "2", "--workers", "1")
    printed = run(installed / "wovr", "collect", "--policy", "expert", "--suite", "spatial", *few, cwd=tmp_path)
    assert "data/demos: 4 episodes" in printed
    few = ("--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.val_check_interval", "1")
    printed = run(installed / "wovr", "fit", "--config", "bc", *few, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert "taking data/demos" in printed
    assert json.loads((tmp_path / "runs/bc/metrics.json").read_text())["steps"] == 1
    assert (tmp_path / "runs/bc/checkpoints/last.ckpt").exists()
