"""Arrays, numbers, text, lists and dictionaries out of a pickle, without unpickling it.

The bytes are taken apart by the standard library's disassembler and put together by a fixed list of steps. Nothing that
the file names is imported or called: the only names understood are those by which numpy writes arrays, types and
numbers, and they stand for functions of this file. Whatever else is in it ends the reading.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING"),
}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PLAIN_KINDS = "biufSU"


@dataclass
class _Type:
    """A numpy type on its way: what it is called, then its byte order."""

    dtype: np.dtype


@dataclass
class _Array:
    """A numpy array on its way: empty until its state comes."""

    value: Any = None


def read_plain_objects(data: bytes) -> Any:
    """Read one pickled value.

    Args:
        data: The pickle, protocol 2 to 5.

    Returns:
        Dictionaries, lists, tuples, text, bytes, numbers, None, numpy arrays and numpy numbers.

    Raises:
        ValueError: Anything else is in it, or it is damaged.
    """
    try:
        return _Reader().read(data)
    except (IndexError, KeyError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise ValueError(f"damaged, or not written by numpy ({type(error).__name__}: {error})") from error


class _Reader:
    """The stack and the memory of one reading."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        """The value at the end."""
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _finish(self.stack.pop())
            self._step(opcode.name, argument)
        raise ValueError("it ends before its value does")

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self.stack, self.memo
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        else:
            self._put_together(name, argument)

    def _put_together(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        elif name == "APPENDS":
            values = self._since_mark()
            stack[-1].extend(values)
        elif name == "SETITEM":
            key, value = stack[-2:]
            del stack[-2:]
            stack[-1][key] = value
        elif name == "SETITEMS":
            values = self._since_mark()
            stack[-1].update(zip(values[::2], values[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_known(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_known(stack[-2], stack[-1])]
        elif name == "REDUCE":
            function, arguments = stack[-2:]
            if function not in _KNOWN.values():
                raise ValueError("it calls what is no function of numpy's format")
            stack[-2:] = [function(*arguments)]
        elif name == "BUILD":
            state = stack.pop()
            _fill(stack[-1], state)
        else:
            raise ValueError(f"it contains more than arrays, numbers, text, lists and dictionaries ({name})")

    def _since_mark(self) -> list[Any]:
        place = max(index for index, value in enumerate(self.stack) if value is _MARK)
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values


def _known(module: str, name: str) -> Callable[..., Any]:
    """The function of this file that stands for a name in the pickle."""
    try:
        return _KNOWN[module.replace("numpy.core", "numpy._core"), name]
    except KeyError as error:
        raise ValueError(f"it names {module}.{name}, which is not read") from error


def _new_array(*_: Any) -> _Array:
    return _Array()


def _new_type(code: str, *_: Any) -> _Type:
    dtype = np.dtype(str(code))
    if dtype.kind not in _PLAIN_KINDS + "O" or (dtype.hasobject and dtype.kind != "O"):
        raise ValueError(f"it holds values of type {code}")
    return _Type(dtype)


def _array_class() -> None:
    """Numpy's class itself, which only stands as an argument."""


def _new_scalar(kind: _Type, data: Any) -> Any:
    if kind.dtype.kind == "O":
        raise ValueError("it holds a number of Python's own type in numpy's clothes")
    return np.frombuffer(_as_bytes(data), kind.dtype, count=1)[0]


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes are written in {encoding}")
    return text.encode("latin-1")


def _from_buffer(data: Any, kind: _Type, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(_as_bytes(data), kind.dtype).reshape(shape, order="F" if order == "F" else "C")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "scalar"): _new_scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _array_class,
    ("numpy", "dtype"): _new_type,
    ("_codecs", "encode"): _encoded,
}


def _fill(target: Any, state: Any) -> None:
    """What comes after an array or a type has been made: its values, its byte order."""
    if isinstance(target, _Type):
        order = state[1]
        if order in ("<", ">"):
            target.dtype = target.dtype.newbyteorder(order)
    elif isinstance(target, _Array):
        _, shape, kind, fortran, values = state
        if kind.dtype.kind == "O":
            array = np.empty(math.prod(shape), object)
            for index, value in enumerate(values):
                array[index] = _finish(value)
            target.value = array.reshape(shape, order="F" if fortran else "C")
        else:
            data = np.frombuffer(_as_bytes(values), kind.dtype)
            target.value = data.reshape(shape, order="F" if fortran else "C")
    else:
        raise ValueError("it gives a state to what is no array")


def _as_bytes(data: Any) -> bytes | bytearray:
    if isinstance(data, str):
        return data.encode("latin-1")  # protocol 2 has no bytes
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("values are not bytes")
    return data


def _finish(value: Any) -> Any:
    """The value without this file's own wrappers."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _finish(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_finish(item) for item in value)
    return value
