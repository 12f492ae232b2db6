"""Plain values come out of a pickle as numpy wrote them; anything else does not, and nothing runs."""

from __future__ import annotations

import collections
import pickle

import numpy as np
import pytest

from wovr.data.converters.plain_objects import read_plain_objects


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back(protocol: int) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 4, 3), np.uint8)
    value = {
        "image": frames,
        "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
        "view": frames[::2, ::-1],
        "big endian": np.arange(3, dtype=">f4"),
        "text array": np.array(["a", "bcd"]),
        "scalar": np.float32(1.5),
        "bool": np.bool_(True),
        "numbers": [1, -1, 10**12, 2.5, True, None],
        "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "text": "pick up the cube äé",
        "shared": [frames, frames],
        "nested": np.array([{"a": frames[0]}, {"b": 1}], object),
        "bytes": b"\x00\xff",
    }
    found = read_plain_objects(pickle.dumps(value, protocol=protocol))
    assert found.keys() == value.keys()
    for key in ("image", "fortran", "view", "big endian", "text array"):
        np.testing.assert_array_equal(found[key], value[key])
        assert found[key].dtype == value[key].dtype
    for key in ("scalar", "bool", "numbers", "tuple", "text", "bytes"):
        assert found[key] == value[key]
        assert type(found[key]) is type(value[key])
    np.testing.assert_array_equal(found["shared"][1], frames)
    np.testing.assert_array_equal(found["nested"][0]["a"], frames[0])
    assert found["nested"][1] == {"b": 1}


class Trap:
    sprung = False

    def __reduce__(self) -> tuple:
        return _spring, ()


def _spring() -> None:
    Trap.sprung = True


@pytest.mark.parametrize(
    "value",
    [Trap(), {"a": [Trap()]}, collections.OrderedDict(a=1), {1, 2}, np.dtype([("a", "f4")]), np.arange(3).sum, 1j],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused_and_nothing_runs(value: object) -> None:
    data = pickle.dumps(value)
    with pytest.raises(ValueError, match=r"."):
        read_plain_objects(data)
    assert not Trap.sprung


def test_damage_is_a_value_error() -> None:
    data = pickle.dumps({"a": np.arange(100), "b": [1, 2]}, protocol=4)
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.integers(len(data))] = rng.integers(256)
        stop = int(rng.integers(1, len(data) + 1))
        try:
            read_plain_objects(bytes(broken[:stop]))
        except ValueError:
            continue  # all that may happen beside a value
