"""Where MuJoCo cannot render, one line names the package to install and the variable to unset."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wovr.envs.simulators.rendering import explain_opengl
from wovr.errors import UserError

COLLECT = "collect --policy random --suite goal --tasks 0 --episodes 1 --workers 1 --num_envs 1 --out a"

NO_LIBRARY = """
import ctypes.util
found = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if name in ("OSMesa", "EGL", "GL", "OpenGL") else found(name)
load = ctypes.CDLL.__init__
def without(self, name, *args, **options):
    if any(part in str(name) for part in ("OSMesa", "libEGL", "libGL", "libOpenGL")):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    load(self, name, *args, **options)
ctypes.CDLL.__init__ = without
"""
"""A sitecustomize.py by which a process and those it starts find no OpenGL."""


def collect(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`wovr collect`, which renders in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return subprocess.run(
        [sys.executable, "-m", "wovr", *COLLECT.split()],
        cwd=tmp_path,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("display", [None, ":77"])
def test_glfw_without_a_display(display: str | None, tmp_path: Path) -> None:
    result = collect(tmp_path, MUJOCO_GL="glfw", **({"DISPLAY": display} if display else {}))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "through MUJOCO_GL=glfw" in result.stderr
    assert "; unset MUJOCO_GL, or set it to egl or osmesa" in result.stderr


@pytest.mark.parametrize("before", ["osmesa", "egl"])
@pytest.mark.parametrize(("backend", "package"), [("osmesa", "libosmesa6"), ("egl", "libegl1")])
def test_a_missing_library_names_its_package(backend: str, package: str, before: str, tmp_path: Path) -> None:
    """Whatever PyOpenGL was told by a program that rendered before."""
    (tmp_path / "sitecustomize.py").write_text(NO_LIBRARY)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    result = collect(tmp_path, MUJOCO_GL=backend, PYOPENGL_PLATFORM=before, PYTHONPATH=path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"MUJOCO_GL={backend}" in result.stderr
    assert f"apt-get install {package}" in result.stderr
    assert "or unset MUJOCO_GL" in result.stderr
    assert "import path" not in result.stderr


@pytest.mark.parametrize("backend", ["banana", "disable"])
def test_a_value_that_renders_nothing(backend: str, tmp_path: Path) -> None:
    result = collect(tmp_path, MUJOCO_GL=backend)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"MUJOCO_GL={backend}" in result.stderr
    assert "; unset MUJOCO_GL, or set it to egl or osmesa" in result.stderr


def test_other_errors_are_not_taken_for_opengls() -> None:
    def raised(code: str, file: str, error: type[Exception] = RuntimeError) -> Exception:
        with pytest.raises(error) as caught:
            exec(compile(code, file, "exec"))
        return caught.value

    assert explain_opengl(raised("raise RuntimeError('no device')", "/x/OpenGL/EGL/__init__.py")) is not None
    assert explain_opengl(raised("raise RuntimeError('a motor')", "/x/my_robot.py")) is None
    wrong_camera = raised("raise ValueError('no camera')", "/x/mujoco/rendering/classic/renderer.py", ValueError)
    assert explain_opengl(wrong_camera) is None
    assert explain_opengl(UserError("told already")) is None
