"""Weights of feature networks that are not part of the package: what they are, where they lie, how they get there.

Everything is pinned by size and SHA-256 and checked before it is read, whether it was fetched or copied by hand.
Torch is imported only where tensors are read: `wovr weights` does without.
"""

from __future__ import annotations

import http.client
import os
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wovr.errors import UserError
from wovr.runs import atomic_write, file_sha256

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FOLDER_VARIABLE = "WOVR_WEIGHTS"
"""Environment variable that names the folder of weights."""

_TIMEOUT = 60.0  # seconds without a byte
_BLOCK = 2**18  # bytes


@dataclass(frozen=True)
class WeightsFile:
    """One file.

    Attributes:
        file: Its name in the folder.
        url: Where it can be fetched.
        size: Bytes.
        sha256: 64 hexadecimal digits.
        network: What it holds.
        metrics: What it is for.
    """

    file: str
    url: str
    size: int
    sha256: str
    network: str
    metrics: str


WEIGHTS: dict[str, WeightsFile] = {
    "alexnet": WeightsFile(
        "alexnet-owt-7be5be79.pth",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        244_408_911,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "AlexNet on ImageNet, torchvision's",
        "lpips, flolpips",
    ),
    "inception": WeightsFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        95_628_359,
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Inception of the original FID, converted from TensorFlow by pytorch-fid",
        "fid",
    ),
    "i3d": WeightsFile(
        "i3d_torchscript.pt",
        "https://huggingface.co/flateon/FVD-I3D-torchscript/resolve/1c2d61711c52571ad617a1063e6fa691b212e184/i3d_torchscript.pt",
        51_235_320,
        "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        "I3D on Kinetics-400 of the original FVD, TorchScript, converted from TensorFlow for StyleGAN-V",
        "fvd",
    ),
    "raft": WeightsFile(
        "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        21_106_607,
        "ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322",
        "RAFT large, torchvision's",
        "flolpips",
    ),
}
"""Name -> file."""


def weights_folder(folder: str | Path = "") -> Path:
    """The folder of weights: as given, else the environment's, else the user's cache."""
    chosen = str(folder) or os.environ.get(FOLDER_VARIABLE, "")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "wovr" / "weights"


def has_weights(name: str, folder: Path) -> bool:
    """Whether the file is there; it is checked when it is used."""
    return (folder / WEIGHTS[name].file).is_file()


def checked_weights(name: str, folder: Path, instead: str = "") -> Path:
    """The path of a file that is there and is the right one.

    Args:
        name: Key of WEIGHTS.
        folder: Folder of weights.
        instead: What else the user could do, for the message.

    Raises:
        UserError: It is missing, or another file.
    """
    path = folder / WEIGHTS[name].file
    if not path.is_file():
        remedy = f"fetch it with: wovr weights fetch {name}"
        raise UserError(
            f"{path}: missing ({WEIGHTS[name].network}, {WEIGHTS[name].size / 1e6:.0f} MB)",
            f"{remedy}, {instead}" if instead else remedy,
        )
    _check(path, name)
    return path


def fetch_weights(name: str, folder: Path, on_bytes: Callable[[int], object] = lambda count: None) -> Path:
    """Download a file, unless it is there already, and check it.

    Args:
        name: Key of WEIGHTS.
        folder: Folder of weights; made when missing.
        on_bytes: Called with the number of bytes that have arrived since the last call.

    Raises:
        UserError: It cannot be fetched or written, or what arrives is not what it should be.
    """
    wanted = WEIGHTS[name]
    path = folder / wanted.file
    if path.is_file():
        _check(path, name)
        return path
    arriving = path.with_name(path.name + ".part")
    with atomic_write(arriving) as file:
        for block in _download(wanted.url, path):
            file.write(block)
            on_bytes(len(block))
    try:
        _check(arriving, name)
        arriving.replace(path)
    finally:
        arriving.unlink(missing_ok=True)
    return path


def read_state_dict(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Tensors of a state dict on disk, without unpickling; further ones are left out.

    Args:
        path: The file.
        shapes: Name -> shape of the tensors wanted.

    Raises:
        UserError: Not a state dict, or one without these tensors.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # a damaged file fails in every way there is
        raise UserError(f"{path}: cannot be read as weights", "fetch it again: wovr weights fetch") from error
    for name, shape in shapes.items():
        if not isinstance(found, dict) or name not in found or found[name].shape != shape:
            raise UserError(f"{path}: has no weight '{name}' of shape {tuple(shape)}", "fetch it: wovr weights fetch")
    return {name: found[name] for name in shapes}


def _download(url: str, path: Path) -> Iterator[bytes]:
    """The bytes behind an address, in blocks.

    Raises:
        UserError: They do not come.
    """
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "wovr"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            while block := answer.read(_BLOCK):
                yield block
    # URLError is an OSError, as are time-outs and broken connections.
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be fetched: {reason}", f"download it elsewhere and put it at {path}") from error


def _check(path: Path, name: str) -> None:
    """Hold a file against the table.

    Raises:
        UserError: It has another size or digest.
    """
    wanted, size = WEIGHTS[name], path.stat().st_size
    remedy = f"remove it and fetch it again: wovr weights fetch {name}"
    if size != wanted.size:
        raise UserError(f"{path}: {size:,} bytes, {wanted.size:,} expected", remedy)
    digest = file_sha256(path)
    if digest != wanted.sha256:
        raise UserError(f"{path}: SHA-256 is {digest}, {wanted.sha256} expected", remedy)
