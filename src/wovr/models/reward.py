"""The success classifier (paper, section 4.2, Eq. 8): the probability that a frame shows the task done.

Unlike the authors', who use a ResNet-18 on one frame and embed the task in one suite only: a light ResNet on a short
window of frames, always told the task, and a task that it was not trained for is refused. Asked about the outcome
instead, the same network is a value function: the probability that the episode is going to succeed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.checkpoint import Network, load_network
from wovr.models.film import ConditionedBlock, Film

_GRID = 4
"""Places, each way, that the last map is pooled to. Cameras stand still: where something is matters."""

_BATCH = 256
"""Windows judged at a time: as fast as more, in a fraction of the memory."""

Task = tuple[str, int]
"""A task by its suite and its index there."""


class SuccessClassifier(Network):
    """A window of frames and a task to the probability that the window's last frame is successful.

    A ResNet with group norms; the task's learned embedding scales and shifts every block (FiLM). The weights do not
    depend on how many tasks there are, so that training can add those of its data and keep those of earlier data.

    Args:
        window: Frames it looks at; the last one is judged.
        threshold: Probability from which a frame counts as successful, in (0, 1].
        consecutive: Frames in a row that make a success.
        channels: Channels of the stem and of each stage, multiples of 8; each of them halves the picture.
        blocks: Residual blocks of a stage.
        embedding: Numbers that a task is embedded in.
        width: Hidden features of the head.
        max_tasks: Tasks there is room for.
        tasks: Tasks it is trained for, as (suite, index); training adds those of its data.
        judges: What its probability is of: `frame`, that the window's last frame is successful; or `outcome`, that the
            episode, not successful yet, is going to succeed as the policy of its data acts: a value function.

    Attributes:
        tasks: Tasks it is trained for, in the order of their embeddings.
    """

    kind: ClassVar[str] = "reward"

    def __init__(
        self,
        window: int = 2,
        threshold: float = 0.5,
        consecutive: int = 2,
        channels: Sequence[int] = (16, 24, 48, 96),
        blocks: int = 1,
        embedding: int = 32,
        width: int = 64,
        max_tasks: int = 128,
        tasks: Sequence[tuple[str, int]] = (),
        judges: Literal["frame", "outcome"] = "frame",
    ) -> None:
        super().__init__()
        for name, value in (("window", window), ("consecutive", consecutive), ("blocks", blocks)):
            if value < 1:
                raise ValueError(f"{name} is {value}: at least 1 is needed")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}: a number in (0, 1] is needed")
        if len(channels) < 2 or any(number < 8 or number % 8 for number in channels):
            raise ValueError(f"channels is {list(channels)}: two or more multiples of 8 are needed")
        self.window = window
        self.threshold = threshold
        self.consecutive = consecutive
        self.judges = judges
        self.tasks: list[Task] = []
        self._rows: dict[Task, int] = {}
        self.stem = nn.Conv2d(3 * window, channels[0], 3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        for before, after in pairwise(channels):
            for index in range(blocks):
                start, stride = (before, 2) if index == 0 else (after, 1)
                self.stages.append(ConditionedBlock(start, after, stride, embedding))
        self.embedding = nn.Embedding(max_tasks, embedding)
        self.norm = nn.GroupNorm(8, channels[-1])
        self.pool = nn.AdaptiveAvgPool2d(_GRID)
        self.hidden = nn.Linear(channels[-1] * _GRID**2, width)
        self.film = Film(embedding, width)
        self.head = nn.Linear(width, 1)
        self.to(memory_format=torch.channels_last)
        self.add_tasks(tasks)

    def add_tasks(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Give an embedding to the tasks that have none yet.

        Raises:
            UserError: There is no room for so many.
        """
        new = dict.fromkeys((str(suite), int(index)) for suite, index in tasks)
        known = [*self.tasks, *(task for task in new if task not in self._rows)]
        if len(known) > self.embedding.num_embeddings:
            raise UserError(
                f"{len(known)} tasks, the classifier has room for {self.embedding.num_embeddings}",
                f"set the network's max_tasks to {len(known)} or more",
            )
        self._set_tasks(known)

    def take_state(self, tasks: Sequence[tuple[str, int]], threshold: float) -> None:
        """Take what training has decided from a checkpoint: tasks in the order of their embeddings, and a threshold."""
        self._set_tasks([])
        self.add_tasks(tasks)
        self.set_threshold(threshold)

    def set_threshold(self, threshold: float) -> None:
        """Set the probability from which a frame counts as successful; it travels in checkpoints."""
        self.threshold = threshold
        self.init_args["threshold"] = threshold

    def check_tasks(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Compare tasks with those that the classifier was trained for.

        Raises:
            UserError: It was not trained for one of them.
        """
        missing = sorted({(str(suite), int(index)) for suite, index in tasks} - self._rows.keys())
        if missing:
            suite, index = missing[0]
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"the success classifier was not trained for task {index} of {suite}{more}, "
                f"only for {_listed(self.tasks)}",
                "train one on episodes of all tasks: wovr fit --config conf/reward.yaml",
            )

    def forward(self, images: Tensor, rows: Tensor) -> Tensor:
        """Judge windows.

        Args:
            images: (B, 3 * window, H, W) float in [-1, 1], the frames of a window one after the other.
            rows: (B,) int64, place of each window's task in `tasks`.

        Returns:
            (B,) float, logit of the probability that the last frame is successful.
        """
        task = self.embedding(rows)  # (B, embedding)
        x = self.stem(images.to(memory_format=torch.channels_last))
        for block in self.stages:
            x = block(x, task)
        x = self.pool(nn.functional.silu(self.norm(x))).flatten(1)  # (B, channels * 16)
        return self.head(nn.functional.silu(self.film(self.hidden(x), task))).squeeze(1)

    def rows(self, tasks: Sequence[tuple[str, int]]) -> Tensor:
        """Places of tasks in `tasks`: (B,) int64, on the network's device.

        Raises:
            UserError: The classifier was not trained for one of them.
        """
        try:
            found = [self._rows[suite, index] for suite, index in tasks]
        except KeyError:
            self.check_tasks(tasks)
            raise
        return torch.tensor(found, dtype=torch.int64, device=self.stem.weight.device)

    @torch.no_grad()
    def logits(self, frames: Tensor, tasks: Sequence[tuple[str, int]]) -> Tensor:
        """`probability` before the sigmoid: (N, L - window + 1) float32."""
        count = frames.shape[1] - self.window + 1
        if frames.ndim != 5 or count < 1 or len(frames) != len(tasks):
            raise ValueError(
                f"frames {tuple(frames.shape)} and {len(tasks)} tasks: (N, L, H, W, 3) with L >= {self.window} and N"
                " tasks are needed"
            )
        rows = self.rows(tasks).repeat_interleave(count)  # (N * n,)
        frames = frames.to(rows.device)
        # Neighbouring frames side by side in the last dimension: channels last, without moving a byte twice.
        stacked = torch.cat([frames[:, i : i + count] for i in range(self.window)], dim=-1)  # (N, n, H, W, 3 * window)
        pictures = stacked.flatten(0, 1)  # (N * n, H, W, 3 * window)
        parts = [
            self(stacked_images(part), row)
            for part, row in zip(pictures.split(_BATCH), rows.split(_BATCH), strict=True)
        ]
        return torch.cat(parts).float().unflatten(0, (len(frames), count))

    def probability(self, frames: Tensor, tasks: Sequence[tuple[str, int]]) -> Tensor:
        """Judge every frame that ends a window.

        Args:
            frames: (N, L, H, W, 3) uint8, L >= window, successive frames of N rollouts.
            tasks: Their tasks, as (suite, index).

        Returns:
            (N, L - window + 1) float32 in [0, 1], on the network's device: the probability that frame window - 1,
            window, ... L - 1 is successful.

        Raises:
            UserError: The classifier was not trained for one of the tasks.
        """
        return self.logits(frames, tasks).sigmoid()

    def _set_tasks(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        self._rows = {task: row for row, task in enumerate(self.tasks)}
        self.init_args["tasks"] = [list(task) for task in self.tasks]


def stacked_images(frames: Tensor) -> Tensor:
    """(B, H, W, 3 * window) uint8 -> (B, 3 * window, H, W) float32 in [-1, 1], channels last in memory."""
    return frames.movedim(-1, 1).to(torch.float32) / 127.5 - 1


def load_classifier(checkpoint: Path, judges: Literal["frame", "outcome"] = "frame") -> SuccessClassifier:
    """Rebuild a success classifier from a checkpoint of `wovr fit`, on the CPU, in evaluation mode.

    Args:
        checkpoint: The checkpoint.
        judges: What it has to judge, see SuccessClassifier.

    Raises:
        UserError: No such file, no checkpoint, one of another kind, pickled objects in it, weights that do not fit, or
            a classifier that judges something else.
    """
    found = load_network(Path(checkpoint), SuccessClassifier)
    if found.judges != judges:
        frame, outcome = "a success classifier (conf/reward.yaml)", "a value function (conf/value.yaml)"
        there, wanted = (outcome, frame) if judges == "frame" else (frame, outcome)
        raise UserError(f"{checkpoint}: holds {there}", f"give {wanted}")
    return found


def _listed(tasks: Sequence[Task]) -> str:
    """`spatial 0, 1, 2; goal 4` from tasks; long lists are cut."""
    suites: dict[str, list[str]] = {}
    for suite, index in sorted(tasks):
        suites.setdefault(suite, []).append(str(index))
    shown = {suite: [*found[:12], *(["..."] if len(found) > 12 else [])] for suite, found in suites.items()}
    parts = [f"{suite} {', '.join(found)}" for suite, found in shown.items()]
    return "; ".join(parts) or "none"
