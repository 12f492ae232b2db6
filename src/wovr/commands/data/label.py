"""`wovr data label`: success marked by hand, in the terminal."""

from __future__ import annotations

from pathlib import Path

from wovr.commands.data.convert import INPUTS_FILE
from wovr.commands.terminal import episode_progress
from wovr.data.labels import LABELS_FILE, LABELS_FOLDER, Labels, apply_labels, frame_sheet
from wovr.data.pictures import write_png
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError, check_least
from wovr.printing import printable
from wovr.runs import RunFolder, only_run

_ANSWERS = "a frame, none, back or quit"


def label(folder: Path, *, out: Path | None = None, sheet_frames: int = 48) -> None:
    """Mark by hand, in the terminal, from which frame on each episode succeeds; the same command goes on where it was.

    Each episode's frames are drawn with their numbers into DIR/labels/KEY.png; answers go to DIR/labels/labels.json.

    Args:
        folder: Folder with shards and dataset.json; it stays as it is.
        out: Folder of the data set with the new labels, written when every episode has one.
        sheet_frames: Frames drawn of each episode at most.
    """
    check_least("--sheet_frames", sheet_frames)
    if out is not None and out.resolve() == folder.resolve():
        raise UserError(f"--out is {out}, the data set itself", "choose another folder")
    store = EpisodeStore(folder)
    with only_run(folder / LABELS_FOLDER):
        labels = Labels(store, folder / LABELS_FOLDER / LABELS_FILE)
        ended = False
        while labels.waiting() and not ended:
            ended = not _ask(labels, labels.waiting()[0], sheet_frames)
    successes = sum(frame is not None for frame in labels.frames.values())
    print(f"{labels.path}: {len(labels.frames)} of {len(store)} episodes labelled, {successes} successes")
    if out is None or labels.waiting():
        if labels.waiting():
            print("the same command goes on")
        return
    run = RunFolder(out, {"labels": labels.frames, "data": store.fingerprint}, begun=INPUTS_FILE)
    run.refuse_others()
    run.start()
    with episode_progress(f"label {folder}", len(store)) as on_episode:
        dataset = apply_labels(labels, out, on_episode)
    run.finish(episodes=dataset["episodes"])
    print(f"{out}: {dataset['episodes']} episodes, SR {dataset['success_rate']:.3f}")


def _ask(labels: Labels, index: int, sheet_frames: int) -> bool:
    """Ask for one episode until there is an answer; False where the person has ended."""
    store, entry = labels.store, labels.store.entries[index]
    sheet = labels.path.parent / f"{entry.key}.png"
    write_png(frame_sheet(store.frames(index), sheet_frames), sheet)
    print(
        f"{entry.key} ({len(labels.frames) + 1} of {len(store)}), {entry.num_frames} frames: "
        + printable(entry.meta.instruction)
    )
    print(f"  {sheet}")
    while True:
        try:
            answer = input(f"  succeeds from frame (0 to {entry.num_frames - 1}), none, back or quit: ").strip().lower()
        except EOFError:
            print()
            return False
        if answer in ("quit", "q"):
            return False
        if answer in ("back", "b"):
            if labels.take_back() is None:
                print("  there is none before it")
                continue
            return True
        try:
            labels.give(index, None if answer in ("none", "n") else int(answer))
        except ValueError:
            print(f"  '{answer}' is not {_ANSWERS}")
        except UserError as error:
            print(f"  {error}")
        else:
            return True
