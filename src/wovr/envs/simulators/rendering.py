"""Which OpenGL MuJoCo renders with, and what makes software rendering fast. Free of torch.

`python -m wovr.envs.simulators.rendering` tries the backends one after another, each in a process of its own, and
prints the first that works: `export MUJOCO_GL=$(python -m wovr.envs.simulators.rendering)`.
"""

from __future__ import annotations

import copy
import ctypes.util
import glob
import os
import subprocess
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

import numpy as np

from wovr.errors import UserError

if TYPE_CHECKING:
    import mujoco

BACKENDS = ("egl", "osmesa")
"""OpenGL without a screen on Linux: through EGL (by the graphics card, else Mesa's software), or Mesa's OSMesa."""

REMEDY = "install one with: apt-get install libosmesa6 (where that is gone: libegl1 libopengl0), or set MUJOCO_GL"

_REMEDIES = {
    "egl": "install it with: apt-get install libegl1 libopengl0, or unset MUJOCO_GL, or set it to osmesa",
    "osmesa": "install it with: apt-get install libosmesa6, or unset MUJOCO_GL, or set it to egl",
    "glfw": "unset MUJOCO_GL, or set it to egl or osmesa: glfw draws in windows and needs a display (DISPLAY)",
}
"""MUJOCO_GL -> what to do where MuJoCo cannot render with it."""

_OPENGL_CODE = (
    *("/OpenGL/", "/glfw/", "/mujoco/egl/", "/mujoco/osmesa/", "/mujoco/glfw/", "/mujoco/cgl/", "/mujoco/rendering/"),
    *("/mujoco/gl_context.py", "/mujoco/renderer.py", "/mujoco_rendering.py", "/robosuite/renderers/context/"),
)
"""Parts of the paths of code that finds and talks to OpenGL: MuJoCo's, Gymnasium's, robosuite's and below them."""

_PROBE_SECONDS = 120
_NATIVE = {"darwin": "cgl", "win32": "wgl"}


def choose_backend() -> str:
    """Set MUJOCO_GL where the user has not. Call it before `mujoco` is imported, which reads the variable then.

    A graphics card whose driver offers EGL comes first, then Mesa's OSMesa, then EGL in software. This only looks for
    devices and libraries: loading one would bring its compiler into this process. To try them for real, run
    `python -m wovr.envs.simulators.rendering`.

    Returns:
        The value of MUJOCO_GL.

    Raises:
        UserError: There is no OpenGL to render with.
    """
    # What GLFW says of a missing display, in warnings of two lines, `explain_opengl` says in one that helps.
    warnings.filterwarnings("ignore", module=r"glfw(\.|$)")
    chosen = os.environ.get("MUJOCO_GL", "")
    # MuJoCo leaves this behind for PyOpenGL, for child processes too. Where it says another backend than MUJOCO_GL,
    # MuJoCo comes without its renderer and keeps silent about why.
    if os.environ.get("PYOPENGL_PLATFORM", chosen) != chosen.lower() and "OpenGL" not in sys.modules:
        del os.environ["PYOPENGL_PLATFORM"]
    if chosen:
        return chosen
    if sys.platform in _NATIVE:
        chosen = _NATIVE[sys.platform]
    elif _has_library("EGL") and _has_graphics_card():
        chosen = "egl"
    elif _has_library("OSMesa"):
        chosen = "osmesa"
    elif _has_library("EGL"):
        chosen = "egl"
    else:
        raise UserError("no OpenGL library to render pictures with", REMEDY)
    os.environ["MUJOCO_GL"] = chosen
    return chosen


def explain_opengl(error: BaseException) -> UserError | None:
    """The line for an exception out of code that finds or talks to OpenGL; None for any other.

    A missing library shows as an attribute of None deep inside PyOpenGL, which helps nobody.
    """
    if isinstance(error, UserError | ValueError | TypeError | MemoryError):
        return None  # a camera that is not there, a picture too large: raised there, yet not by OpenGL
    files = [frame.f_code.co_filename.replace(os.sep, "/") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(part in file for file in files for part in _OPENGL_CODE):
        return None
    backend = os.environ.get("MUJOCO_GL", "").strip().lower()
    said = f"{type(error).__name__}: {error}"
    remedy = _REMEDIES.get(backend, f"unset MUJOCO_GL, or set it to {' or '.join(BACKENDS)}")
    return UserError(f"MuJoCo cannot render with OpenGL through MUJOCO_GL={backend or '(unset)'} ({said})", remedy)


def tune_model(model: mujoco.MjModel, size: tuple[int, int]) -> None:
    """Prepare a model for rendering at one size, several times faster: no multisampling, shadows or reflections.

    Call it BEFORE a renderer is made of the model: the number of samples and the buffers' sizes are read then. Physics
    does not depend on any of this.

    Args:
        model: A compiled model, changed in place.
        size: Height and width of the pictures, pixels.
    """
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.vis.global_.offheight, model.vis.global_.offwidth = size
    model.light_castshadow[:] = False
    model.mat_reflectance[:] = 0.0


def coarse_meshes(model: mujoco.MjModel, cell: float) -> mujoco.MjModel:
    """A copy of a model with fewer triangles, for a renderer only (collisions need the original's meshes).

    Rossignac and Borrel's vertex clustering: vertices in one cube of a grid become one, triangles that lose a corner
    go. Software rendering of a detailed robot at 64 x 64 spends most of its time on triangles smaller than a pixel.

    Args:
        model: A compiled model, left as it is.
        cell: Edge of the cubes, metres; details below it are lost.

    Returns:
        The copy. Its `mesh_facenum` is lower; its `nmeshface` is not, the room stays.
    """
    model = copy.copy(model)
    for mesh in range(model.nmesh):
        vertices = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
        first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        cubes = np.floor(model.mesh_vert[vertices] / cell).astype(np.int64)  # (V, 3)
        _, representative, cube = np.unique(cubes, axis=0, return_index=True, return_inverse=True)
        faces = representative[cube.reshape(-1)][model.mesh_face[first : first + count]]  # (F, 3) vertices of the mesh
        sorted_faces = np.sort(faces, axis=1)
        whole = np.flatnonzero((np.diff(sorted_faces, axis=1) > 0).all(axis=1))
        _, unique = np.unique(sorted_faces[whole], axis=0, return_index=True)
        kept = whole[np.sort(unique)]
        if not len(kept):
            continue  # the mesh is smaller than a cube: leave it
        rows = slice(first, first + len(kept))
        model.mesh_face[rows] = faces[kept]
        model.mesh_facenormal[rows] = model.mesh_facenormal[first + kept]
        model.mesh_facetexcoord[rows] = model.mesh_facetexcoord[first + kept]
        model.mesh_facenum[mesh] = len(kept)
    return model


def fast_renderer(model: mujoco.MjModel, size: tuple[int, int], mesh_cell: float = 0.0) -> mujoco.Renderer:
    """A renderer of a tuned copy of a model; the model itself is left as it is.

    The renderer's own `update_scene` shows the copy. Where a task edits the model after this (positions of fixed
    bodies, colours), fill the scene from the original: `mujoco.mjv_updateScene(model, ..., renderer.scene)`.

    Args:
        model: A compiled model.
        size: Height and width of the pictures, pixels.
        mesh_cell: Detail of meshes that may be lost, metres; 0 keeps all.
    """
    import mujoco

    tuned = coarse_meshes(model, mesh_cell) if mesh_cell > 0.0 else copy.copy(model)
    tune_model(tuned, size)
    return mujoco.Renderer(tuned, *size)


def close_renderer(renderer: mujoco.Renderer) -> None:
    """Close one of several renderers of a process.

    `Renderer.close` deletes its lists and buffers by number in whichever context is current: if that is another
    renderer's, that one renders nothing from then on. Rendering once makes its own context current.
    """
    renderer.render()
    renderer.close()


def render_probe() -> None:
    """Render a red ball before a black sky with the backend of MUJOCO_GL.

    Raises:
        RuntimeError: The picture is wrong.
    """
    import mujoco

    model = mujoco.MjModel.from_xml_string(
        "<mujoco><visual><headlight ambient='1 1 1'/></visual><worldbody>"
        "<geom size='.1' rgba='1 0 0 1'/><camera name='front' pos='0 -.5 0' euler='90 0 0'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with fast_renderer(model, (32, 32)) as renderer:
        renderer.update_scene(data, camera="front")
        image = renderer.render()
    red, green, blue = (int(value) for value in image[16, 16])
    if red < 100 or max(green, blue) > 50 or image[0, 0].max() > 50:
        raise RuntimeError(f"a red ball came out as {image[16, 16]} on {image[0, 0]}")


def working_backend() -> str:
    """The first backend that renders, each tried in a process of its own; only the user's where MUJOCO_GL is set.

    Raises:
        UserError: None does.
    """
    user = os.environ.get("MUJOCO_GL", "")
    first = choose_backend()
    failures = []
    for backend in (first,) if user else dict.fromkeys((first, *BACKENDS)):
        failure = _probe_failure(backend)
        if failure is None:
            return backend
        failures.append(f"{backend} ({failure})")
    raise UserError(f"no OpenGL renders here: {', '.join(failures)}", REMEDY)


def main() -> int:
    """Print a backend that works: 0, or one line that says what to install: 1."""
    try:
        print(working_backend())
    except UserError as error:
        print(f"wovr: error: {error}", file=sys.stderr)
        return 1
    return 0


def _probe_failure(backend: str) -> str | None:
    """Why `backend` does not render in a child process, or None where it does."""
    code = "from wovr.envs.simulators.rendering import render_probe; render_probe()"
    environment = os.environ | {"MUJOCO_GL": backend}
    try:
        child = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no picture after {_PROBE_SECONDS} s"
    if child.returncode == 0:
        return None
    if child.returncode < 0:
        return f"killed by signal {-child.returncode}"
    lines = [line for line in child.stderr.splitlines() if line and not line.startswith(" ")]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no message"])[0 if errors else -1]


def _has_graphics_card() -> bool:
    """A device to render on that this process may open, with a driver for it."""
    nvidia = bool(glob.glob("/dev/nvidia[0-9]*")) and _has_library("EGL_nvidia")
    return nvidia or any(os.access(node, os.R_OK | os.W_OK) for node in glob.glob("/dev/dri/renderD*"))


def _has_library(name: str) -> bool:
    """A shared library the loader would find: the system's, or one in LD_LIBRARY_PATH."""
    if ctypes.util.find_library(name):
        return True
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return any(glob.glob(f"{glob.escape(folder)}/lib{name}.so*") for folder in folders if folder)


if __name__ == "__main__":
    sys.exit(main())
