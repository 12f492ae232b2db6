"""Folders of keyframes that are damaged, or made to hurt: one line, before anything is unpacked."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.keyframes.episodes import write_mixed
from wovr.data.keyframes.rules import KeyframeRules, find_keyframes
from wovr.data.keyframes.store import load_keyframes, save_keyframes
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.runs import file_sha256


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return EpisodeStore(write_mixed(tmp_path_factory.mktemp("mixed")))


def written_before_proprioception(folder: Path) -> None:
    path = folder / "keyframes.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if name != "proprio"}
    np.savez(path, **arrays)
    edit_list(lambda value: value.update(arrays_sha256=file_sha256(path)))(folder)


def edit_list(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "keyframes.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return edit


def edit_arrays(**changed: np.ndarray) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "keyframes.npz"
        with np.load(path) as file:
            arrays = dict(file) | changed
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        path.write_bytes(buffer.getvalue())
        edit_list(lambda value: value.update(arrays_sha256=file_sha256(path)))(folder)

    return edit


def not_an_archive(folder: Path) -> None:
    path = folder / "keyframes.npz"
    path.write_bytes(b"PK\x03\x04nonsense")
    edit_list(lambda value: value.update(arrays_sha256=file_sha256(path)))(folder)


def packed_zeros(folder: Path) -> None:
    """Some 300 kB of states that are zeros: 320 MB when unpacked, and the list agrees."""
    path = folder / "keyframes.npz"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if name != "sim_state.npy"}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (40_000_000,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
        with archive.open("sim_state.npy", "w") as file:
            file.write(head.getvalue())
            for _ in range(320):
                file.write(bytes(1_000_000))

    def agree(value: dict) -> None:
        for row in value["keyframes"]:
            row["sim_state_size"] = 0
        value["keyframes"][0]["sim_state_size"] = 40_000_000
        value["arrays_sha256"] = file_sha256(path)

    edit_list(agree)(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "keyframes.json").unlink(), "holds no keyframes.json; make it with: wovr data"),
        (lambda folder: (folder / "keyframes.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "keyframes.json").write_text("[]"), "not a list of keyframes"),
        (edit_list(lambda value: value.update(schema_version=9)), "schema version 1"),
        (edit_list(lambda value: value.update(keyframes=[])), "no keyframe in it"),
        (edit_list(lambda value: value["keyframes"][1].pop("horizon")), "keyframe 1: horizon is None"),
        (edit_list(lambda value: value["keyframes"][0].update(kind="luck")), "keyframe 0: kind luck"),
        (edit_list(lambda value: value["keyframes"][0].update(horizon=0)), "horizon 0"),
        (edit_list(lambda value: value["keyframes"].pop()), "keyframes.json makes it"),
        (edit_list(lambda value: value.pop("datasets")), "does not say of which episodes"),
        (lambda folder: (folder / "keyframes.npz").unlink(), "keyframes.npz: no such file"),
        (lambda folder: (folder / "keyframes.npz").write_bytes(b"x"), "not the arrays keyframes.json was written for"),
        (not_an_archive, "keyframes.npz: broken"),
        (edit_arrays(memory=np.zeros((3, 4, 8, 8, 3), np.uint8)), "keyframes.json makes it"),
        (edit_arrays(reference=np.array([{}], object)), "keyframes.npz: broken"),
        (edit_list(lambda value: value["keyframes"][0].update(frame=10**400)), "keyframe 0: kind"),
        (edit_list(lambda value: value.update(image_size=[10**9, 10**9])), "image_size, memory or action_dim"),
        (edit_list(lambda value: value.update(memory="4")), "image_size, memory or action_dim"),
        (edit_list(lambda value: value["keyframes"][0].update(sim_state_size=10**9)), "keyframes.json makes it"),
        (packed_zeros, "keyframes.npz: broken .*bytes that unpack to 3203"),
        (edit_arrays(proprio=np.zeros(3, np.float32)), "keyframes.json makes it"),
        (written_before_proprioception, "keyframes.npz: broken .*proprio.*; find keyframes again with: wovr data"),
    ],
)
def test_a_damaged_folder_is_named(
    store: EpisodeStore, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    save_keyframes(tmp_path, find_keyframes(store, KeyframeRules()).found)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        load_keyframes(tmp_path)
    assert str(tmp_path) in str(error.value)
