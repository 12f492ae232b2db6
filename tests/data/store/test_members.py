"""Encoding and checking one episode."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from tests.data.store.damage import npy
from tests.data.synthetic import assert_same, make_episode
from wovr.data.store.arrays import array_header, decode_array
from wovr.data.store.members import FIELDS, decode_episode, decode_meta, encode_episode
from wovr.errors import UserError
from wovr.types import EpisodeMeta


def by_field(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name.partition(".")[2]: data for name, data in members.items()}


def full_episode(**changes: Any) -> Any:
    rng = np.random.default_rng(0)
    proprio, camera = rng.normal(size=(24, 7)), np.repeat(np.eye(3, 7)[None], 24, axis=0)
    camera[:, :, 3:6], camera[:, :, 6] = np.eye(3), rng.normal(size=(24, 3))
    return make_episode(3, **{"proprio": proprio.astype(np.float32), "camera": camera.astype(np.float32)} | changes)


@pytest.mark.parametrize("lossless", [True, False])
def test_round_trip(lossless: bool) -> None:
    episode = full_episode()
    members = encode_episode(episode, lossless=lossless)
    unused = "frames.mp4" if lossless else "frames.npy"
    assert list(members) == [f"{episode.key}.{field}" for field in FIELDS if field != unused]
    assert_same(decode_episode(episode.key, by_field(members)), episode, frames_too=lossless)


def test_equal_episodes_give_equal_bytes() -> None:
    assert encode_episode(full_episode()) == encode_episode(full_episode())


def test_meta_survives_with_everything_in_it() -> None:
    meta = EpisodeMeta("öffne die Schublade", "goal", 3, 11, 29.97, "expert", "real", 5, extra={"a": [1, {"b": None}]})
    assert decode_episode("k", by_field(encode_episode(make_episode(0, key="k", meta=meta)))).meta == meta


def spoilt(name: str, index: Any, value: float) -> dict[str, Any]:
    array = getattr(make_episode(0), name).copy()
    array[index] = value
    return {name: array}


ACTIONS = np.zeros((23, 4), np.float32)
META = make_episode(0).meta


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (spoilt("actions", (5, 2), 1.25), ["actions", "step 5", "dimension 2", "1.25 is outside [-1, 1]"]),
        (spoilt("actions", (0, 1), float("nan")), ["actions", "step 0", "dimension 1", "nan is not finite"]),
        (spoilt("actions", (22, 3), float("-inf")), ["actions", "step 22", "-inf is not finite"]),
        ({"actions": ACTIONS[:-1]}, ["actions", "22 of them for 24 frames"]),
        ({"actions": ACTIONS.astype(np.float64)}, ["actions", "float64"]),
        ({"actions": ACTIONS[:, 0]}, ["actions", "(23,)"]),
        ({"actions": ACTIONS[:, :0]}, ["actions", "(23, 0)"]),
        ({"frames": np.zeros((24, 32, 32), np.uint8)}, ["frames", "(24, 32, 32)"]),
        ({"frames": np.zeros((24, 32, 32, 3), np.float32)}, ["frames", "float32"]),
        ({"frames": np.zeros((24, 0, 32, 3), np.uint8)}, ["frames", "(24, 0, 32, 3)"]),
        ({"frames": np.zeros((1, 32, 32, 3), np.uint8)}, ["frames", "1 of them", "2 to 512"]),
        ({"frames": np.zeros((513, 8, 8, 3), np.uint8)}, ["frames", "513 of them", "2 to 512"]),
        ({"success": np.zeros(24, np.uint8)}, ["success", "uint8"]),
        ({"success": np.zeros(23, bool)}, ["success", "(23,)"]),
        ({"sim_state": np.zeros((24, 9), np.float32)}, ["sim_state", "float32"]),
        ({"sim_state": np.zeros((23, 9))}, ["sim_state", "(23, 9)"]),
        ({"proprio": np.zeros((24, 7))}, ["proprio", "float64"]),
        ({"camera": np.zeros(24, np.float32)}, ["camera", "(24,)"]),
        ({"camera": np.zeros((2, 3, 7), np.float32)}, ["camera", "(2, 3, 7)", "or one for all"]),
        ({"camera": np.zeros((1, 3, 7), np.float32)}, ["camera", "no intrinsic matrix"]),
        ({"meta": EpisodeMeta("x", "s", 0, 0, 0.0, "p", "s")}, ["meta", "fps"]),
        ({"meta": EpisodeMeta("x", "s", "0", 0, 10.0, "p", "s")}, ["meta", "task"]),
        ({"meta": EpisodeMeta(None, "s", 0, 0, 10.0, "p", "s")}, ["meta", "instruction"]),
        ({"meta": EpisodeMeta("x", "s", 0, 0, 10.0, "p", "s", schema_version=2)}, ["meta", "schema version 2"]),
        ({"meta": EpisodeMeta("x", "s", 0, 0, 10.0, "p", "s", extra={"a": {1, 2}})}, ["meta", "JSON"]),
        ({"meta": EpisodeMeta("x", "s", 0, 0, 10.0, "p", "s", extra={"a": float("nan")})}, ["meta", "JSON"]),
        ({"key": "a.b"}, ["'a.b'"]),
        ({"key": "a/b"}, ["'a/b'"]),
        ({"key": "k" * 81}, ["80"]),
        ({"key": ""}, ["''"]),
    ],
)
def test_what_breaks_the_format_is_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        encode_episode(make_episode(0, **changes))
    key = [] if "key" in changes else ["spatial-000000"]
    assert [word for word in key + words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        ("actions.npy", None, "actions.npy: missing"),
        ("meta.json", None, "meta.json: missing"),
        ("frames.mp4", None, "frames.mp4: missing"),
        ("frames.npy", b"", "frames.npy: frames.mp4 exists too"),
        ("notes.pkl", b"", "notes.pkl: not a member"),
        ("frames.mp4", b"no video", "frames.mp4: not a readable video"),
        ("actions.npy", b"no array", "actions.npy: not a plain .npy array"),
        ("actions.npy", npy(ACTIONS)[:-5], "actions.npy: 363 bytes of values, its header promises 368"),
        ("success.npy", npy(np.array([{}], object), True), "success.npy: not a plain .npy array"),
        ("meta.json", b"{", "meta.json: not valid JSON"),
        ("meta.json", b"[]", "meta.json: not a JSON object"),
        ("meta.json", b'{"schema_version": 9}', "meta.json: schema version 9"),
        ("meta.json", b'{"schema_version": 1, "suite": "a"}', "meta.json: missing 6 required"),
    ],
)
def test_a_broken_member_is_named(field: str, data: bytes | None, message: str) -> None:
    members = by_field(encode_episode(make_episode(0)))
    if data is None:
        del members[field]
    else:
        members[field] = data
    with pytest.raises(ValueError, match=message):
        decode_episode("spatial-000000", members)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool, np.uint8, ">i4"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_arrays_read_as_numpy_reads_them(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    file = io.BytesIO()
    np.save(file, array)
    decoded = decode_array("x.npy", file.getvalue())
    np.testing.assert_array_equal(decoded, array)
    assert decoded.dtype == array.dtype
    assert decoded.flags.writeable
    assert array_header("x.npy", file.getvalue()[:200])[0] == shape


def test_a_header_that_promises_more_than_there_is_reserves_no_memory() -> None:
    huge = npy(np.zeros((1,), np.uint8)).replace(b"(1,), }" + b" " * 20, b"(1" + b"0" * 20 + b",), }")
    with pytest.raises(ValueError, match="its header promises 1000000000"):
        decode_array("x.npy", huge)


def test_fortran_order_is_refused() -> None:
    with pytest.raises(ValueError, match="C-ordered"):
        decode_array("x.npy", npy(np.asfortranarray(np.zeros((3, 4)))))


def test_unknown_meta_fields_are_refused() -> None:
    data = encode_episode(make_episode(0))["spatial-000000.meta.json"]
    with pytest.raises(ValueError, match="unexpected keyword argument 'robot'"):
        decode_meta(data.replace(b'"fps"', b'"robot": 1, "fps"'))
