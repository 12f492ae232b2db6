"""Autoencoders of diffusers with their released weights, from a folder or the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from wovr.errors import UserError
from wovr.models.rebuilding import BoundedBuilding
from wovr.runs import read_json

PARTS = ("config.json", "diffusion_pytorch_model.safetensors")
"""Files of diffusers' layout (large models: several `diffusion_pytorch_model-*.safetensors` and their index)."""


def read_pretrained(network: Any, source: str, example: str) -> Any:
    """One of diffusers' networks with its weights, on the CPU.

    Args:
        network: Its class.
        source: A local folder in diffusers' layout (the autoencoder's own, or a pipeline's with a folder `vae`), or the
            name of a pipeline on the hub, which needs a network or an earlier download.
        example: Such a name, for messages.

    Raises:
        UserError: Nothing there, something else there, or no network.
    """
    folder = Path(source)
    local = folder.exists()
    if local and (folder / "vae" / PARTS[0]).is_file():
        folder = folder / "vae"
    if local and not (folder / PARTS[0]).is_file():
        raise UserError(f"{folder}: holds no {PARTS[0]}", f"give a folder in diffusers' layout: {', '.join(PARTS)}")
    if not local and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source):
        raise UserError(f"{source}: no such folder", "check the path, or give a name on the hub such as " + example)
    where: dict[str, Any] = {"local_files_only": True} if local else {"subfolder": "vae"}
    try:
        if local:
            _check_size(network, folder)
        # Safetensors only: the other format of the hub is pickled.
        vae, report = network.from_pretrained(
            str(folder) if local else source,
            use_safetensors=True,
            output_loading_info=True,
            low_cpu_mem_usage=False,  # true needs one more package
            **where,
        )
    # Whatever is wrong with the files, diffusers has an exception of its own for it.
    except Exception as error:
        remedy = (
            "restore the folder"
            if local
            else "connect to a network, or download it elsewhere and give the folder's path instead"
        )
        raise UserError(f"{source}: cannot be loaded: {str(error).splitlines()[0]}", remedy) from error
    lacking = [*report["missing_keys"], *report["unexpected_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if lacking:
        raise UserError(
            f"{source}: {len(lacking)} weights are missing, unexpected or of another shape, e.g. '{min(lacking)}'",
            "use the files of one release",
        )
    return vae


def _check_size(network: Any, folder: Path) -> None:
    """Build what config.json describes without memory first: it may not be larger than the weights beside it.

    Raises:
        ValueError: It is.
        Exception: Whatever safetensors and diffusers raise at files that are none.
    """
    weights: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            weights |= {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118
    with torch.device("meta"), BoundedBuilding(weights):
        network.from_config(read_json(folder / PARTS[0]))
