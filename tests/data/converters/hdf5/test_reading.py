"""An HDF5 file is read as it lies there: nothing that it points to is opened, nothing that is not stored allocated."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.refusal import refused
from tests.data.converters.foreign import demo, needs, write_demos
from wovr.cli import main
from wovr.data.converters.hdf5 import reading as hdf5
from wovr.data.store.reader import EpisodeStore

h5py = needs("h5py")
SHAPE = (6, 32, 32, 3)
IMAGE = "data/demo_0/obs/agentview_image"


def external_link(file: Any, other: Path) -> None:
    file[IMAGE] = h5py.ExternalLink(str(other), "pictures")


def external_demo(file: Any, other: Path) -> None:
    del file["data/demo_0"]
    file["data/demo_0"] = h5py.ExternalLink(str(other), "/")


def external_group(file: Any, other: Path) -> None:
    del file["data"]
    file["data"] = h5py.ExternalLink(str(other), "/")


def soft_link_through_an_external_one(file: Any, other: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(other), "/")
    file[IMAGE] = h5py.SoftLink("/elsewhere/pictures")


def external_storage(file: Any, other: Path) -> None:
    file.create_dataset(IMAGE, SHAPE, np.uint8, external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual(file: Any, other: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(str(other), "pictures", SHAPE)
    file.create_virtual_dataset(IMAGE, layout)


def filter_keys(file: Any, other: Path) -> None:
    file["mask/train"] = h5py.ExternalLink(str(other), "pictures")


def mask_group(file: Any, other: Path) -> None:
    file["mask"] = h5py.ExternalLink(str(other), "/")


def instruction(file: Any, other: Path) -> None:
    file["data/demo_0/language"] = h5py.ExternalLink(str(other), "pictures")


HOSTILE = [external_link, external_demo, external_group, soft_link_through_an_external_one, external_storage, virtual]
HOSTILE += [filter_keys, mask_group, instruction]


@pytest.mark.parametrize("point", HOSTILE, ids=lambda function: function.__name__)
def test_nothing_outside_the_file_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], point: Callable[[Any, Path], None]
) -> None:
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for ever
    source = write_demos(tmp_path / "a.hdf5", demo(**{"obs/agentview_image": None}))
    with h5py.File(source, "a") as file:
        point(file, tmp_path / "pipe")
    line = refused(capsys, "convert", source, "--out", tmp_path / "o")
    assert "which is not followed" in line or "which is not read" in line
    assert not (tmp_path / "o").exists()


def test_links_inside_the_file_are_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_demos(tmp_path / "a.hdf5", demo(**{"obs/agentview_image": None}))
    with h5py.File(source, "a") as file:
        file["pictures"] = demo()["obs/agentview_image"]
        file["there"] = h5py.SoftLink("pictures")
        file[IMAGE] = h5py.SoftLink("/./there")
    assert main(["data", "convert", str(source), "--out", str(tmp_path / "o")]) == 0
    assert len(EpisodeStore(tmp_path / "o")) == 1
    for number, target in enumerate(("/nowhere/at/all", "obs", "agentview_image")):
        with h5py.File(source, "a") as file:
            del file[IMAGE]
            file[IMAGE] = h5py.SoftLink(target)
        line = refused(capsys, "convert", source, "--out", tmp_path / f"o{number}")
        assert f"is a link to {target}, which is not there" in line


@pytest.mark.parametrize("key", ["actions", "obs/agentview_image", "rewards", "states"])
@pytest.mark.parametrize("chunks", [True, None])
def test_a_shape_of_which_nothing_is_stored_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, chunks: bool | None
) -> None:
    first = demo(states=np.zeros((6, 9))) if key == "states" else demo()
    source = write_demos(tmp_path / "a.hdf5", first, demo(**{key: None}))
    tail = {"actions": (7,), "rewards": (), "states": (9,)}.get(key, SHAPE[1:])
    for rows in (6, 10**12 // int(np.prod((1, *tail)))):
        with h5py.File(source, "a") as file:
            group = file["data/demo_1"]
            if key in group:
                del group[key]
            dtype = np.uint8 if "image" in key else float
            group.create_dataset(key, (rows, *tail), dtype, chunks=(1, *tail) if chunks else None)
        tracemalloc.start()
        line = refused(capsys, "convert", source, "--out", tmp_path / "o")
        assert tracemalloc.get_traced_memory()[1] < 2**26
        tracemalloc.stop()
        assert "a.hdf5: demo_1" in line
        assert "stored" in line or "rows" in line or "are read" in line or "an episode has at most" in line


def test_a_hole_in_the_pictures_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_demos(tmp_path / "a.hdf5", demo(**{"obs/agentview_image": None}))
    with h5py.File(source, "a") as file:
        pictures = file.create_dataset(IMAGE, SHAPE, np.uint8, chunks=(2, *SHAPE[1:]))
        pictures[:4] = 200  # the recorder was killed here
    line = refused(capsys, "convert", source, "--out", tmp_path / "o")
    assert "demo_0: agentview_image: shape (6, 32, 32, 3), but only 2 of its 3 pieces are stored" in line


@pytest.mark.parametrize(
    "how", [{"compression": "gzip", "shuffle": True}, {"compression": "lzf"}, {"fletcher32": True}]
)
def test_packed_pictures_are_read_a_few_at_a_time(
    tmp_path: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (11, 80, 90, 3), np.uint8)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for chunks in ((1, 80, 90, 3), (4, 40, 45, 1), (16, 80, 90, 3)):
            array = file.create_dataset(str(chunks), data=pictures, chunks=chunks, maxshape=(None, 80, 90, 3), **how)
            monkeypatch.setattr(hdf5, "_BLOCK", 5 * 80 * 90 * 3)
            np.testing.assert_array_equal(np.stack(list(hdf5.read_pictures(array))), pictures)


@pytest.mark.parametrize("size", [5000, 2**20, 2**28])
def test_a_piece_that_unpacks_to_another_size_is_refused(tmp_path: Path, size: int) -> None:
    packer = zlib.compressobj(9)
    step = min(size, 2**20)
    bomb = b"".join(packer.compress(bytes(step)) for _ in range(size // step)) + packer.flush()
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        array = file.create_dataset("a", (2, 32, 32, 3), np.uint8, chunks=(2, 32, 32, 3), compression="gzip")
        array.id.write_direct_chunk((0, 0, 0, 0), bomb)
    with h5py.File(tmp_path / "a.hdf5") as file:
        array = hdf5.member(file, "a")
        with pytest.raises(hdf5.NotRead, match="a piece"):
            list(hdf5.read_pictures(array))


def test_filters_that_load_a_library_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_demos(tmp_path / "a.hdf5", demo(**{"obs/agentview_image": None}))
    with h5py.File(source, "a") as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk(SHAPE)
        how.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)  # blosc
        space = h5py.h5s.create_simple(SHAPE)
        obs = file["data/demo_0"].require_group("obs")
        array = h5py.h5d.create(obs.id, b"agentview_image", h5py.h5t.NATIVE_UINT8, space, how)
        h5py.Dataset(array).id.write_direct_chunk((0, 0, 0, 0), bytes(np.prod(SHAPE)), 1)
    line = refused(capsys, "convert", source, "--out", tmp_path / "o")
    assert "packed with filter 32001, which is not read; write it anew: h5repack" in line


def test_damage_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_demos(tmp_path / "a.hdf5", demo(attrs={"ep_meta": '{"lang": "x"}'}))
    whole = source.read_bytes()
    (tmp_path / "b.hdf5").write_bytes(whole)
    rng = np.random.default_rng(0)
    refusals = 0
    for number in range(30):
        broken = bytearray(whole)
        for place in rng.integers(len(whole), size=1 if number % 2 else 20):
            broken[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.hdf5").write_bytes(broken[: len(whole) if number % 3 else int(rng.integers(len(whole)))])
        code = main(["data", "convert", str(tmp_path / "b.hdf5"), "--out", str(tmp_path / f"o{number}")])
        assert code in (0, 2)
        refusals += code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == (code == 2)
    assert refusals > 10
