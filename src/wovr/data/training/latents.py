"""Latents of all episodes, computed once and kept beside the shards, for training a world model on them.

Beside `NAME-000003.tar` lies `NAME-000003.latents-DIGITS.npy`: (frames of the shard, C, h, w) float16, one row for each
frame of its episodes, in their order. Row t of an episode is the latent of the four frames that END at frame t; before
the first frame the first is repeated, so row 0 is the episode's first frame alone. Any window is then a choice of rows.

DIGITS stand for the autoencoder's class, arguments and weights and for the shard's bytes: whatever changes, the name no
longer fits, and the file is made anew. Files are memory-mapped, so a data set larger than memory will do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.functional.images import frames_to_float
from wovr.models.checkpoint import fingerprint_of
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT, Autoencoder
from wovr.runs import atomic_write, fingerprint

LAYOUT = 1
"""Version of what a file holds; part of its name."""

BATCH = 64
"""Groups of frames that are encoded at once."""


class LatentCache:
    """Latents of every episode of a store. Those that are missing or stale are made when the cache is opened.

    Only for an autoencoder that is groupwise, and whose encoder costs something: latents of a PatchAutoencoder are the
    pixels, as large as they are, and cutting them up is as cheap as reading them back (`autoencoder.worth_caching`).

    Travels into DataLoader workers. Processes that open it at the same time all do the work, harmlessly; let one do it
    first (`LightningDataModule.prepare_data`).

    Args:
        store: The episodes.
        autoencoder: Encodes them, on the device and in the dtype it has. Not kept.

    Attributes:
        fingerprint: 16 hexadecimal digits that stand for the autoencoder.
        shape: (C, h, w) of a latent frame.

    Raises:
        UserError: The autoencoder is of another kind, cannot take the images, makes numbers that float16 cannot hold;
            the episodes are broken; the disk is full.
    """

    def __init__(self, store: EpisodeStore, autoencoder: Autoencoder) -> None:
        if not autoencoder.worth_caching:
            raise UserError(
                f"latents of {type(autoencoder).__name__} are not cached: "
                + ("they are the pixels themselves" if autoencoder.groupwise else "they depend on earlier frames"),
                "encode windows as they come",
            )
        self.store = store
        self.fingerprint = fingerprint_of(autoencoder)
        self.shape = (autoencoder.latent_channels, *autoencoder.latent_size(store.image_size))
        self._files: dict[Path, Path] = {}  # shard -> its latents
        for folder, dataset in zip(store.folders, store.datasets, strict=True):
            for shard in dataset["shards"]:
                path = folder / shard["file"]
                digits = fingerprint([LAYOUT, self.fingerprint, shard["sha256"]])
                self._files[path] = path.with_name(f"{path.stem}.latents-{digits}.npy")
        self._rows = np.zeros(len(store), np.int64)  # of each episode's first frame in its shard's file
        self._count: dict[Path, int] = dict.fromkeys(self._files, 0)
        for index, entry in enumerate(store.entries):
            self._rows[index] = self._count[entry.shard]
            self._count[entry.shard] += entry.num_frames
        self._open: dict[Path, np.ndarray] = {}
        self._make_missing(autoencoder)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def latents(self, episode: int, starts: Sequence[int] | np.ndarray) -> Tensor:
        """Latents of groups of four frames of an episode.

        Args:
            episode: Its index in the store.
            starts: (n,) index of each group's first frame, from -3 to T - 4. Frames before the first are the first: -3
                gives the latent of the first frame alone (`Autoencoder.encode_first`).

        Returns:
            (n, C, h, w) float32.

        Raises:
            IndexError: A group that is not in the episode.
            UserError: The file is gone or broken.
        """
        entry = self.store.entries[episode]
        ends = np.asarray(starts, np.int64) + (FRAMES_PER_LATENT - 1)
        if len(ends) and not 0 <= ends.min() <= ends.max() < entry.num_frames:
            raise IndexError(f"groups that start at {list(starts)} in an episode of {entry.num_frames} frames")
        rows = self._mapped(entry.shard)[self._rows[episode] + ends]
        return torch.from_numpy(rows.astype(np.float32))

    def _mapped(self, shard: Path) -> np.ndarray:
        """(frames of the shard, C, h, w) float16, on disk."""
        if shard not in self._open:
            path = self._files[shard]
            try:
                array = np.lib.format.open_memmap(path, mode="r")
            except Exception as error:  # its header is Python's notation, whose parser raises a dozen kinds
                problem = f"{path}: missing or broken: {str(error)[:200]}"
                raise UserError(problem, "remove it, it will be made anew") from error
            if array.shape != (self._count[shard], *self.shape) or array.dtype != np.float16:
                raise UserError(f"{path}: holds {array.dtype} {array.shape}", "remove it, it will be made anew")
            self._open[shard] = array
        return self._open[shard]

    def _make_missing(self, autoencoder: Autoencoder) -> None:
        missing = [shard for shard, path in self._files.items() if not path.is_file()]
        if not missing:
            return
        start, frames = time.monotonic(), sum(self._count[shard] for shard in missing)
        for shard in missing:
            made = shard.parent.glob(f"{escape(shard.stem)}.latents-*.npy")
            stale = [path for path in made if path != self._files[shard]]
            if stale:
                print(f"{stale[0]}: from another autoencoder or other episodes, made anew")
            self._write(shard, autoencoder)
            for path in stale:
                path.unlink(missing_ok=True)
        seconds = time.monotonic() - start
        print(f"{missing[0].parent}: latents of {frames} frames in {len(missing)} shards made in {seconds:.1f} s")

    def _write(self, shard: Path, autoencoder: Autoencoder) -> None:
        """Encode a shard."""
        header = {"descr": "<f2", "fortran_order": False, "shape": (self._count[shard], *self.shape)}
        with atomic_write(self._files[shard]) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for index, entry in enumerate(self.store.entries):
                if entry.shard != shard:
                    continue
                latents = encode_episode(autoencoder, self.store.frames(index)).half()
                if not latents.isfinite().all():
                    raise UserError(
                        f"{shard}: episode {entry.key}: its latents are not finite in float16",
                        "train the autoencoder anew, or look at the episode",
                    )
                file.write(latents.numpy().astype("<f2", copy=False).tobytes())


@torch.no_grad()
def encode_episode(autoencoder: Autoencoder, frames: np.ndarray) -> Tensor:
    """Latents of the four frames that end at each frame of an episode.

    Args:
        autoencoder: Groupwise; used as it is in evaluation mode, on its device.
        frames: (T, H, W, 3) uint8.

    Returns:
        (T, C, h, w) float32 on the CPU.
    """
    weight = next(autoencoder.parameters())
    was_training = autoencoder.training
    autoencoder.eval()
    before = np.arange(1 - FRAMES_PER_LATENT, 1)  # the group that ends at frame 0
    groups = np.maximum(np.arange(len(frames))[:, None] + before, 0)  # (T, 4)
    found = []
    for start in range(0, len(frames), BATCH):
        batch = torch.from_numpy(frames[groups[start : start + BATCH]]).to(weight.device)  # (N, 4, H, W, 3)
        found.append(autoencoder.encode_group(frames_to_float(batch).to(weight.dtype)).float().cpu())
    autoencoder.train(was_training)
    return torch.cat(found)
