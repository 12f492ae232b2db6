"""`wovr evaluate --reward CKPT`: a success classifier on held-out episodes, real and imagined (paper, Eq. 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wovr.commands.arguments import choose_device, words
from wovr.commands.evaluate.results import Results
from wovr.commands.places import HELD_OUT, REWARD
from wovr.commands.terminal import table_console
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError, check_least
from wovr.functional.classification import (
    CalibrationBin,
    JudgedEpisode,
    calibration_table,
    pooled,
    precision_at_recall,
    score,
)
from wovr.models.checkpoint import check_image_size, data_record, network_fingerprint
from wovr.models.reward import SuccessClassifier, load_classifier

PLOTS = ("precision_recall.png", "calibration.png")
"""Charts below OUT/plots."""

NAME = "reward"
"""The metric's name in `--metrics` and metrics.json."""

_FRAME_COLUMNS = {
    "frames": "frames",
    "successful": "positives",
    "precision": "precision",
    "recall": "recall",
    "average precision": "average_precision",
    "calibration error": "calibration_error",
}
_EPISODE_COLUMNS = {
    "episodes": "episodes",
    "succeeded": "succeeded",
    "called so": "called",
    "precision": "episode_precision",
    "recall": "episode_recall",
    "accuracy": "episode_accuracy",
}


def evaluate_reward(
    reward: str = REWARD,
    data: str = HELD_OUT,
    out: Path = Path("runs/evaluate/reward"),
    metrics: str = NAME,
    imagined: str = "",
    threshold: float | None = None,
    consecutive: int | None = None,
    device: str = "auto",
) -> None:
    """Measure a success classifier on held-out episodes, and on imagined ones.

    Writes OUT/metrics.json and OUT/plots, and prints tables: precision, recall, average precision and calibration error
    of frames; precision, recall and accuracy of episodes, a success being so many frames in a row. The same command
    again prints what was measured.

    Args:
        reward: Checkpoint of a success classifier.
        data: Folder of held-out episodes; several as a comma list.
        out: Folder of the results.
        metrics: reward, which is measured on its own.
        imagined: Folder of imagined episodes with the success of the real ones they were imagined from; several as a
            comma list; empty for none.
        threshold: Probability from which a frame counts as successful; the classifier's own unless given.
        consecutive: Frames in a row that make a success; the classifier's own unless given.
        device: Where to compute: auto, cpu, cuda.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UserError(f"--threshold is {threshold}", "give a number in (0, 1]")
    check_least("--consecutive", consecutive)
    sources = {"real": data} | ({"imagined": imagined} if imagined else {})
    stores = {name: EpisodeStore(*_folders(name, folders)) for name, folders in sources.items()}
    inputs = {
        "reward": network_fingerprint(Path(reward), SuccessClassifier),
        "data": {name: store.fingerprint for name, store in stores.items()},
        "threshold": threshold,
        "consecutive": consecutive,
    }
    results = Results(out, inputs)
    if not results.are_there():
        classifier = load_classifier(Path(reward)).to(choose_device(device))
        for store in stores.values():
            check_episodes(classifier, store, Path(reward))
        results.begin()
        judged = {name: judge_episodes(classifier, store) for name, store in stores.items()}
        level = classifier.threshold if threshold is None else threshold
        in_a_row = classifier.consecutive if consecutive is None else consecutive
        measured = {name: _values(found, level, in_a_row) for name, found in judged.items()}
        values: dict[str, Any] = {"threshold": level, "consecutive": in_a_row, "window": classifier.window, **measured}
        values |= {"plots": _draw(measured, out / "plots"), "notes": _notes(Path(reward), stores)}
        results.keep({NAME: values})
    table_console().print(reward_table(results.of("reward")))


def check_episodes(classifier: SuccessClassifier, store: EpisodeStore, path: Path) -> None:
    """Compare a classifier with the episodes it is to judge.

    Args:
        classifier: The classifier.
        store: The episodes.
        path: Its checkpoint.

    Raises:
        UserError: Tasks that it was not trained for, pictures of another size, or an episode shorter than its window.
    """
    try:
        classifier.check_tasks([(entry.meta.suite, entry.meta.task) for entry in store.entries])
    except UserError as error:
        raise UserError(f"{path}: judging {', '.join(map(str, store.folders))}: {error}") from error
    check_image_size(path, store.image_size, f"those of {store.folders[0]} have")
    for entry in store.entries:
        if entry.num_frames < classifier.window:
            raise UserError(
                f"{entry.shard}: episode {entry.key}: {entry.num_frames} frames, the classifier looks at "
                f"{classifier.window}",
                "give longer episodes",
            )


@torch.no_grad()
def judge_episodes(classifier: SuccessClassifier, store: EpisodeStore) -> list[JudgedEpisode]:
    """What a classifier says of every episode, beside the truth.

    Raises:
        UserError: A damaged episode, or a task that the classifier was not trained for.
    """
    judged = []
    for index, entry in enumerate(store.entries):
        success = store.success(index)
        frames = torch.from_numpy(store.frames(index))[None]  # (1, T, H, W, 3)
        probability = classifier.probability(frames, [(entry.meta.suite, entry.meta.task)])[0]
        judged.append(
            JudgedEpisode(
                suite=entry.meta.suite,
                task=entry.meta.task,
                key=entry.key,
                probability=probability.cpu().numpy(),
                success=success[classifier.window - 1 :],
                succeeded=bool(success.any()),
            )
        )
    return judged


def reward_table(values: Mapping[str, Any]) -> RenderableType:
    """What was measured, as tables: frames and episodes by suite and task, calibration; and the notes."""
    frames = _scores_table(values, f"frames: successful from probability {values['threshold']:.3g} on", _FRAME_COLUMNS)
    rule = f"{values['consecutive']} such frames in a row"
    episodes = _scores_table(values, f"episodes: successful after {rule}", _EPISODE_COLUMNS)
    bins = Table("probability", title="calibration: how often frames of a probability are successful")
    for source in _sources(values):
        for name in (f"{source}: frames", "mean probability", "successful"):
            bins.add_column(name, justify="right")
    for rows in zip(*(values[source]["calibration"] for source in _sources(values)), strict=True):
        cells = [_cell(row[name]) for row in rows for name in ("frames", "probability", "frequency")]
        bins.add_row(f"{rows[0]['low']:.1f} - {rows[0]['high']:.1f}", *cells)
    return Group(frames, episodes, bins, *(Text(note) for note in values["notes"]))


def _scores_table(values: Mapping[str, Any], title: str, columns: Mapping[str, str]) -> Table:
    """A block a source, with a row a suite and task."""
    table = Table("source", "suite", "task", title=title)
    for name in columns:
        table.add_column(name, justify="right")

    def add(*words: str, scores: Mapping[str, Any]) -> None:
        table.add_row(*words, *(_cell(scores[key]) for key in columns.values()))

    for source in _sources(values):
        suites = values[source]["suites"]
        if len(suites) > 1:
            add(source, "all", "", scores=values[source]["all"])
        for suite, found in suites.items():
            add(source, suite, "all", scores=found["all"])
            for task, scores in found["tasks"].items():
                add("", "", task, scores=scores)
        table.add_section()
    return table


def _values(judged: Sequence[JudgedEpisode], threshold: float, consecutive: int) -> dict[str, Any]:
    """Scores of all episodes, of each suite and task, the curves: JSON values."""

    def scores(episodes: Sequence[JudgedEpisode]) -> dict[str, Any]:
        return asdict(score(episodes, threshold, consecutive))

    suites = {}
    for suite in sorted({episode.suite for episode in judged}):
        of_suite = [episode for episode in judged if episode.suite == suite]
        tasks = sorted({episode.task for episode in of_suite})
        by_task = {str(task): scores([episode for episode in of_suite if episode.task == task]) for task in tasks}
        suites[suite] = {"all": scores(of_suite), "tasks": by_task}
    probability, success = pooled(judged)
    return {
        "all": scores(judged),
        "suites": suites,
        "calibration": [asdict(row) for row in calibration_table(probability, success)],
        "precision_at_recall": precision_at_recall(probability, success),
    }


def _draw(values: Mapping[str, Mapping[str, Any]], folder: Path) -> list[str]:
    """Write the charts; their names relative to the folder's parent."""
    from wovr.commands.report import charts  # imports matplotlib

    curves = {name: measured["precision_at_recall"] for name, measured in values.items()}
    bins = {name: [CalibrationBin(**row) for row in measured["calibration"]] for name, measured in values.items()}
    ideal = {"ideal": [(row.low + row.high) / 2 for row in next(iter(bins.values()))]}
    observed = {
        name: [math.nan if row.frequency is None else row.frequency for row in rows] for name, rows in bins.items()
    }
    figures = (
        charts.line_chart("precision over recall, frames", "recall, %", "precision", curves),
        charts.line_chart(
            "calibration, frames",
            "range of probability: 0 from 0.0 to 0.1, 9 from 0.9 to 1.0",
            "share that is successful",
            ideal | observed,
        ),
    )
    for name, figure in zip(PLOTS, figures, strict=True):
        charts.write_png(figure, folder / name)
    return [f"{folder.name}/{name}" for name in PLOTS]


def _notes(path: Path, stores: Mapping[str, EpisodeStore]) -> list[str]:
    """What a reader of the table should know."""
    notes = []
    if data_record(path).get("episodes") == stores["real"].fingerprint:
        notes.append("real: the classifier was trained on these same episodes, which are not held out")
    for name, store in stores.items():
        for succeeded, missing in ((True, "succeeds: no recall"), (False, "fails: no false success")):
            if not any(entry.succeeded == succeeded for entry in store.entries):
                notes.append(f"{name}: none of the {len(store)} episodes {missing} can be measured")
    return notes


def _folders(name: str, text: str) -> list[Path]:
    folders = [Path(word) for word in words(text)]
    if not folders:
        raise UserError(f"--{'data' if name == 'real' else name} is '{text}'", "give a folder with episodes")
    return folders


def _sources(values: Mapping[str, Any]) -> list[str]:
    return [name for name in ("real", "imagined") if name in values]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
