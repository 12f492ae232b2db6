"""What of the LIBERO package must be handled with care: its import, its assets, its pickled initial states.

The first import asks a question on standard input, its setting for assets is ignored, meshes come from a hub at run
time, and initial states are pickles read through torch. Nothing here imports torch, asks, or unpickles.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import zipfile
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wovr.data.converters.plain_objects import read_plain_objects
from wovr.envs.simulators.rendering import choose_backend, explain_opengl
from wovr.errors import UserError
from wovr.runs import atomic_write

ASSETS_VARIABLE = "WOVR_LIBERO_ASSETS"
"""Environment variable with the folder of assets, where `--env_args.assets` does not say."""

DOWNLOADED = Path("~/.cache/libero/assets")
"""Where the package keeps what it has downloaded from the hub."""

INSTALL = "install it with: pip install 'wovr[libero]'"

_PROBE = Path("scenes") / "libero_tabletop_base_style.xml"
"""A file every folder of assets has."""


def import_libero() -> Any:
    """The package's environment class `ControlEnv`, imported in silence.

    Raises:
        UserError: The package, or one it needs, is missing.
    """
    choose_backend()  # before robosuite imports mujoco
    _write_config()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # robosuite recommends a file of private macros at every import
    try:
        from libero.libero.envs.env_wrapper import ControlEnv
    except ImportError as error:
        raise explain_opengl(error) or UserError(f"libero cannot be imported ({error})", INSTALL) from error
    finally:
        logging.disable(before)
    return ControlEnv


def package_folder() -> Path:
    """The folder `libero/libero` of the installed package.

    Raises:
        UserError: It is not installed.
    """
    found = importlib.util.find_spec("libero")
    for folder in (found.submodule_search_locations or []) if found else []:
        if (Path(folder) / "libero" / "bddl_files").is_dir():
            return Path(folder) / "libero"
    raise UserError("libero is not installed", INSTALL)


def use_assets(assets: str) -> Path:
    """Have the package take meshes and textures from a folder, and say which.

    Args:
        assets: Folder; empty for that of the environment variable WOVR_LIBERO_ASSETS, else the package's own, else what
            it downloads from the hub, once.

    Raises:
        UserError: The folder holds no assets, or none was named and none can be had.
    """
    import libero.libero as package

    chosen = assets or os.environ.get(ASSETS_VARIABLE, "")
    remedy = f"name a folder of LIBERO's assets with --env_args.assets or {ASSETS_VARIABLE}"
    if chosen:
        folder = Path(chosen).expanduser().resolve()
        if not (folder / _PROBE).is_file():
            raise UserError(f"{folder}: no LIBERO assets here ({_PROBE} is missing)", remedy)
    else:
        places = (package_folder() / "assets", DOWNLOADED.expanduser())
        known = [place for place in places if (place / _PROBE).is_file()]
        with redirect_stdout(sys.stderr):
            folder = known[0] if known else Path(package.get_assets_path())
        if not (folder / _PROBE).is_file():
            raise UserError(
                "LIBERO's assets are not on this machine and cannot be downloaded",
                f"{remedy}, or, with a network, pip install huggingface_hub",
            )
    package._assets_path_cache = str(folder)  # its configuration file has a key for it, which nothing reads
    return folder


def bddl_file(suite: str, name: str) -> Path:
    """The description of a task."""
    return package_folder() / "bddl_files" / suite / f"{name}.bddl"


@cache
def init_states(suite: str, name: str) -> np.ndarray:
    """(50, 1 + nq + nv) float64: time, positions and velocities of a task's fixed initial states.

    Raises:
        UserError: The file is missing or is not one array of numbers.
    """
    path = package_folder() / "init_files" / suite / f"{name}.pruned_init"
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
            states = read_plain_objects(archive.read(member))
    except (OSError, StopIteration, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}", "install hf-libero again") from error
    if not isinstance(states, np.ndarray) or states.ndim != 2 or states.dtype != np.float64:
        raise UserError(f"{path}: does not hold a table of initial states", "install hf-libero again")
    return states


def _write_config() -> None:
    """Leave the package's first import nothing to ask: write the configuration it wants where there is none."""
    if "libero.libero" in sys.modules:
        return
    user = Path(os.environ.get("LIBERO_CONFIG_PATH") or "~/.libero").expanduser()
    if (user / "config.yaml").is_file():
        return
    if not os.environ.get("LIBERO_CONFIG_PATH"):
        user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "wovr" / "libero"
        os.environ["LIBERO_CONFIG_PATH"] = str(user)
    root = package_folder()
    places = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": root / "assets",
    }
    # Always rewritten where it is ours: another environment's package may have been the last to use it.
    lines = "".join(f"{key}: '{str(place).replace(chr(39), chr(39) * 2)}'\n" for key, place in places.items())
    with atomic_write(user / "config.yaml") as file:
        file.write(lines.encode())
