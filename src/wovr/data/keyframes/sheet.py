"""A picture of keyframes for a person to judge: reference, memory, the moment that made it one, and what came after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wovr.data.keyframes.rules import Finding
from wovr.data.keyframes.store import Keyframe
from wovr.data.store.reader import EpisodeStore

_MARGIN = 4  # pixels
_LINE = 14  # height of a line of text
_SMALLEST = 96  # a frame is enlarged by a whole factor to at least this height
_AFTER = 8  # frames from the moment to the last picture of a row: a chunk
_GREEN, _RED, _BLUE, _INK, _PAPER = (30, 160, 60), (210, 50, 40), (40, 80, 220), (30, 30, 30), (255, 255, 255)


def keyframe_sheet(store: EpisodeStore, finding: Finding, rows: int = 24) -> Image.Image:
    """Draw a row a keyframe, kind after kind: its caption, then reference | memory | moment | a chunk later.

    The start, which is the last memory frame, has a blue frame around it; the moment a red one for a failure, else a
    green one.

    Args:
        store: The episodes.
        finding: The keyframes found in them.
        rows: Keyframes shown at most.

    Raises:
        UserError: An episode is damaged.
    """
    shown = _choose(finding.found.keyframes, rows)
    height, width = store.image_size
    factor = max(1, -(-_SMALLEST // height))
    cell = (width * factor + 2 * _MARGIN, height * factor + 2 * _MARGIN)
    row_height = _LINE + _MARGIN + cell[1]
    memory = finding.found.memory
    sheet = Image.new("RGB", ((memory + 3) * cell[0], len(shown) * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, number in enumerate(shown):
        keyframe, episode = finding.found.keyframes[number], finding.index[number]
        after = min(keyframe.event + _AFTER, store.entries[episode].num_frames - 1)
        later = [store.frames(episode, t, t + 1)[0] for t in (keyframe.event, after)]
        pictures = [keyframe.reference, *keyframe.memory, *later]
        top = row * row_height
        draw.text((_MARGIN, top + 2), _caption(keyframe, after), _INK, ImageFont.load_default())
        for column, picture in enumerate(pictures):
            left, upper = column * cell[0], top + _LINE + _MARGIN
            colour = {memory: _BLUE, memory + 1: _RED if keyframe.failure else _GREEN}.get(column)
            if colour is not None:
                draw.rectangle((left, upper, left + cell[0] - 1, upper + cell[1] - 1), colour)
            enlarged = Image.fromarray(picture).resize((width * factor, height * factor), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left + _MARGIN, upper + _MARGIN))
    return sheet


def _choose(keyframes: Sequence[Keyframe], rows: int) -> list[int]:
    """Keyframes of each kind in turn, spread over each kind's list; kind after kind."""
    kinds: dict[str, list[int]] = {}
    for number, keyframe in enumerate(keyframes):
        kinds.setdefault(keyframe.kind, []).append(number)
    shares = dict.fromkeys(kinds, 0)
    while sum(shares.values()) < min(rows, len(keyframes)):
        open_kinds = [kind for kind in kinds if shares[kind] < len(kinds[kind])]
        shares[min(open_kinds, key=lambda kind: shares[kind])] += 1
    return [
        numbers[i]
        for kind, numbers in sorted(kinds.items())
        for i in np.linspace(0, len(numbers) - 1, shares[kind]).round().astype(int)
    ]


def _caption(keyframe: Keyframe, after: int) -> str:
    what = f"{keyframe.kind}{' (failure)' if keyframe.failure else ''} at {keyframe.event}"
    text = (
        f"{what}: start {keyframe.frame}, {keyframe.horizon} actions left, then frames {keyframe.event} and {after}  "
        f"{keyframe.episode} {keyframe.suite} {keyframe.task}, {'succeeded' if keyframe.succeeded else 'failed'}"
    )
    return text.encode("latin-1", "replace").decode("latin-1")  # Pillow's built-in font has no more
