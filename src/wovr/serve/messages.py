"""What a page may say: each message checked, with a line for what is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wovr.errors import UserError, choose_from

MOST_BYTES = 4096
"""Longest message."""

MOST_SEED = 2**53 - 1
"""What JavaScript counts to."""


@dataclass(frozen=True)
class Control:
    """What the hand does.

    Attributes:
        action: (A,) float32 in [-1, 1].
        active: Whether it touches anything; time may stand still while it does not.
        number: Of the message, which comes back with the frame that it led to.
    """

    action: np.ndarray
    active: bool
    number: int


def read_message(text: str) -> dict[str, Any]:
    """A message as a dictionary that says what to do.

    Args:
        text: What the page sent.

    Raises:
        UserError: It is too long, no JSON object, or says nothing that can be done.
    """
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise UserError(f"a message of more than {MOST_BYTES} bytes", "send less")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("a message that is not JSON", "send an object with the key 'do'") from error
    if not isinstance(message, dict) or not isinstance(message.get("do"), str):
        raise UserError("a message without the key 'do'", f"give one of: {', '.join(FIELDS)}")
    if message["do"] not in FIELDS:
        raise UserError(f"unknown message '{message['do'][:40]}'", choose_from(message["do"][:40], FIELDS))
    fields = FIELDS[message["do"]]
    for name, value in message.items():
        if name == "do":
            continue
        if name not in fields:
            raise UserError(f"message {message['do']}: unknown key '{name[:40]}'", choose_from(name[:40], fields))
        if not fields[name](value):
            raise UserError(
                f"message {message['do']}: {name} is {json.dumps(value)[:60]}", "see the page for what it is"
            )
    return message


def read_control(message: Mapping[str, Any], action_dim: int) -> Control:
    """A `control` message.

    Raises:
        UserError: Another number of dimensions, or an action outside [-1, 1].
    """
    action = message.get("action")
    if not isinstance(action, list) or len(action) != action_dim:
        raise UserError("message control: action has another length", f"give {action_dim} numbers")
    values = np.array(action, np.float32)
    if (np.abs(values) > 1).any():
        raise UserError("message control: action is out of range", "give numbers from -1 to 1")
    return Control(values, bool(message.get("active", True)), int(message.get("number", 0)))


def _whole(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 256 and all(_number(-1e6, 1e6)(item) for item in value)


FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "hello": {"token": _text},
    "begin": {
        "suite": _text,
        "task": _whole(10**6),
        "episode": _whole(10**6),
        "frame": _whole(10**6),
        "keyframe": _whole(10**6),
        "seed": _whole(MOST_SEED),
    },
    "control": {"action": _numbers, "active": _yes_or_no, "number": _whole(MOST_SEED)},
    "drive": {"driver": _text, "temperature": _number(0, 2), "always": _yes_or_no},
    "again": {"on": _yes_or_no},
    "rewind": {"at": _whole(10**6), "branch": _whole(10**9)},
    "redraw": {},
    "save": {"what": lambda value: value in ("imagined", "real", "mp4")},
}
"""What can be done -> its keys, each with what its value has to be."""
