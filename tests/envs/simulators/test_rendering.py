"""Which backend is chosen, whether it really renders, and that fast pictures are the right pictures."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.envs.simulators.simulation import in_simulator
from wovr.envs.simulators import rendering
from wovr.errors import UserError

ALL_LIBRARIES = ("EGL", "EGL_nvidia", "OSMesa")


@pytest.mark.parametrize(
    ("devices", "libraries", "expected"),
    [
        (["/dev/nvidia0"], ALL_LIBRARIES, "egl"),
        (["/dev/dri/renderD128"], ALL_LIBRARIES, "egl"),
        (["/dev/nvidia0"], ("EGL", "OSMesa"), "osmesa"),  # the card is there, its OpenGL is not
        (["/dev/nvidiactl"], ALL_LIBRARIES, "osmesa"),
        ([], ALL_LIBRARIES, "osmesa"),
        ([], ("EGL",), "egl"),
    ],
)
def test_the_best_backend_is_chosen(monkeypatch, devices, libraries, expected) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(rendering, "_has_library", lambda name: name in libraries)
    monkeypatch.setattr(
        rendering.glob,
        "glob",
        lambda pattern: [path for path in devices if rendering.glob.fnmatch.fnmatch(path, pattern)],
    )
    monkeypatch.setattr(os, "access", lambda path, mode: path in devices)
    assert rendering.choose_backend() == expected
    assert os.environ["MUJOCO_GL"] == expected


def test_the_users_choice_stands(monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert rendering.choose_backend() == "glfw"


def test_nothing_to_render_with_names_the_package(monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(rendering, "_has_library", lambda name: False)
    with pytest.raises(UserError, match="apt-get install libosmesa6"):
        rendering.choose_backend()


def test_a_library_in_the_loaders_path_is_found(monkeypatch, tmp_path) -> None:
    assert not rendering._has_library("WovrTest")
    (tmp_path / "libWovrTest.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")
    assert rendering._has_library("WovrTest")


def test_a_backend_that_does_not_render_is_passed_over(monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "_has_library", lambda name: True)
    monkeypatch.setattr(rendering, "_has_graphics_card", lambda: True)
    monkeypatch.setattr(rendering, "_probe_failure", lambda backend: None if backend == "osmesa" else "no device")
    assert rendering.working_backend() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(UserError, match=r"egl \(no device\); install one with"):
        rendering.working_backend()


@pytest.mark.parametrize(("backend", "status"), [("", 0), ("no-such-gl", 1)])
def test_the_module_as_a_command(backend, status) -> None:
    environment = os.environ | {"MUJOCO_GL": backend}
    command = [sys.executable, "-m", "wovr.envs.simulators.rendering"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == status
    if status == 0:
        assert result.stdout.strip() in rendering.BACKENDS
    else:
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert "no-such-gl" in result.stderr
        assert "libosmesa6" in result.stderr


def scene(rings: int = 24):
    """A model with a ball of 2 * 24 * 24 triangles, 20 cm across, on a shiny floor, and its data."""
    rendering.choose_backend()
    import mujoco

    angle, height = np.meshgrid(np.arange(2 * rings) * np.pi / rings, (np.arange(rings - 1) + 1) * np.pi / rings)
    ball = np.stack([np.cos(angle) * np.sin(height), np.sin(angle) * np.sin(height), np.cos(height)], -1)
    points = np.concatenate([ball.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]]) * 0.1
    floats = " ".join(f"{value:.6f}" for value in points.ravel())
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><visual><quality offsamples='4'/></visual><asset><mesh name='ball' vertex='{floats}'/>"
        "<material name='shiny' reflectance='.8' rgba='.3 .3 .6 1'/></asset>"
        "<worldbody><light pos='1 -1 2' dir='-1 1 -2'/>"
        "<geom type='plane' size='1 1 .1' pos='0 0 -.1' material='shiny'/>"
        "<geom type='mesh' mesh='ball' rgba='1 0 0 1'/><camera name='front' pos='0 -.6 .2' euler='70 0 0'/>"
        "</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def picture(renderer, data) -> np.ndarray:
    renderer.update_scene(data, camera="front")
    return renderer.render().astype(int)


def compare_with_plain_renderer() -> dict:
    model, data = scene()
    import mujoco

    fast = rendering.fast_renderer(model, (64, 48))
    image = picture(fast, data)
    samples, shadows = model.vis.quality.offsamples, model.vis.quality.shadowsize
    rendering.close_renderer(fast)
    model.vis.quality.offsamples = 0
    with mujoco.Renderer(model, 64, 48) as plain:
        with_shadow = picture(plain, data)
        for effect in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            plain.scene.flags[effect] = False
        without = picture(plain, data)
    return {"shape": image.shape, "same": (image == without).all(), "effects": np.abs(image - with_shadow).max()} | {
        "original": (samples, shadows > 0)
    }


def test_fast_renderer_leaves_out_shadows_and_reflections_only() -> None:
    result = in_simulator(compare_with_plain_renderer)
    assert result["shape"] == (64, 48, 3)
    assert result["same"]
    assert result["effects"] > 20  # there was a shadow or reflection to leave out
    assert result["original"] == (4, True)  # the model itself is as it was


def coarsen(cell: float) -> dict:
    model, data = scene()
    faces, count = model.mesh_face.copy(), int(model.mesh_facenum[0])
    coarse = rendering.coarse_meshes(model, cell)
    kept = coarse.mesh_face[: coarse.mesh_facenum[0]]
    pictures = []
    for detail in (0.0, cell):
        renderer = rendering.fast_renderer(model, (64, 64), detail)
        pictures.append(picture(renderer, data))
        rendering.close_renderer(renderer)
    return {
        "before": count,
        "after": len(kept),
        "untouched": (model.mesh_face == faces).all() and model.mesh_facenum[0] == count,
        "corners": min(len(set(face)) for face in kept.tolist()),
        "difference": np.abs(pictures[0] - pictures[1]).mean(),
    }


def test_coarse_meshes_look_alike_with_fewer_triangles() -> None:
    fine = in_simulator(coarsen, 1e-5)
    assert fine["after"] == fine["before"] > 1000
    assert fine["difference"] == 0.0
    coarse = in_simulator(coarsen, 0.02)
    assert coarse["after"] < coarse["before"] / 2
    assert coarse["untouched"]
    assert coarse["corners"] == 3
    assert 0.0 < coarse["difference"] < 4.0
    assert 4 <= in_simulator(coarsen, 10.0)["after"] <= 12  # far smaller than a cube, it still has eight corners


def close_one_of_two() -> tuple[bool, bool]:
    model, data = scene()
    first, second = (rendering.fast_renderer(model, (32, 32)) for _ in range(2))
    before = picture(second, data)
    picture(second, data)  # the second's context is current when the first is closed
    rendering.close_renderer(first)
    return bool(before.std() > 10), bool((picture(second, data) == before).all())


def test_closing_a_renderer_leaves_the_others_alone() -> None:
    assert in_simulator(close_one_of_two) == (True, True)
