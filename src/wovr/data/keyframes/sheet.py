"""A picture of keyframes for a person to judge: reference, memory, the moment that made it one, and what came after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from wovr.data.keyframes.rules import Finding
from wovr.data.keyframes.store import Keyframe
from wovr.data.pictures import BLUE, GREEN, RED, Cell, SheetRow, draw_sheet
from wovr.data.store.reader import EpisodeStore

_AFTER = 8  # frames from the moment to the last picture of a row: a chunk


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
    made = [_row(store, finding.found.keyframes[number], finding.index[number]) for number in shown]
    return draw_sheet(made, store.image_size)


def _row(store: EpisodeStore, keyframe: Keyframe, episode: int) -> SheetRow:
    after = min(keyframe.event + _AFTER, store.entries[episode].num_frames - 1)
    moment, later = (store.frames(episode, t, t + 1)[0] for t in (keyframe.event, after))
    *before, start = keyframe.memory
    cells = [*map(Cell, (keyframe.reference, *before)), Cell(start, BLUE)]
    cells += [Cell(moment, RED if keyframe.failure else GREEN), Cell(later)]
    return SheetRow(cells, [_caption(keyframe, after)])


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
    return (
        f"{what}: start {keyframe.frame}, {keyframe.horizon} actions left, then frames {keyframe.event} and {after}  "
        f"{keyframe.episode} {keyframe.suite} {keyframe.task}, {'succeeded' if keyframe.succeeded else 'failed'}"
    )
