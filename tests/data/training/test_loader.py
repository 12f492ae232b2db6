from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from tests.data.store import damage
from tests.data.synthetic import write_dataset
from wovr.data.store.reader import EpisodeStore
from wovr.data.training.frames import FrameCache
from wovr.data.training.loader import ResumableLoader
from wovr.data.training.sequences import SequenceSamples
from wovr.errors import UserError


class Numbers:
    """Sample i is the number i."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        return torch.tensor(indices)


def passes(loader: ResumableLoader, count: int = 1) -> list[list[list[int]]]:
    return [[batch.tolist() for batch in loader] for _ in range(count)]


def flat(loader: ResumableLoader, count: int) -> list[list[int]]:
    return list(chain(*passes(loader, count)))


def test_every_epoch_is_another_permutation_of_the_same_samples() -> None:
    one, two = passes(ResumableLoader(Numbers(12), 4, seed=3), 2)
    assert [len(batch) for batch in one] == [4, 4, 4]
    assert sorted(chain(*one)) == sorted(chain(*two)) == list(range(12))
    assert one != two
    assert passes(ResumableLoader(Numbers(12), 4, seed=3), 2) == [one, two]
    assert passes(ResumableLoader(Numbers(12), 4, seed=4)) != [one]


def test_workers_do_not_change_the_order() -> None:
    assert passes(ResumableLoader(Numbers(20), 3, num_workers=2)) == passes(ResumableLoader(Numbers(20), 3))


class Pids(Numbers):
    """Every sample is the process that loads it."""

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        return torch.tensor([os.getpid()] * len(indices))


def test_workers_live_from_one_epoch_to_the_next() -> None:
    epochs = passes(ResumableLoader(Pids(12), 2, num_workers=2), 3)
    assert all({pid for batch in epoch for pid in batch} == set(chain(*epochs[0])) for epoch in epochs)
    assert len(set(chain(*epochs[0]))) == 2


@pytest.mark.parametrize("taken", range(1, 10))
def test_resuming_yields_what_was_left(taken: int) -> None:
    whole = flat(ResumableLoader(Numbers(12), 4), 3)
    stopped, seen = ResumableLoader(Numbers(12), 4), []
    while len(seen) < taken:
        for batch in stopped:
            seen.append(batch.tolist())
            if len(seen) == taken:
                break
    resumed = ResumableLoader(Numbers(12), 4)
    resumed.load_state_dict(stopped.state_dict())
    assert (seen + flat(resumed, 3))[:9] == whole


def test_validation_keeps_the_order_and_the_rest_and_begins_anew() -> None:
    loader = ResumableLoader(Numbers(5), 2, shuffle=False)
    next(iter(loader))
    assert passes(loader, 2) == [[[0, 1], [2, 3], [4]]] * 2


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    loader = ResumableLoader(Numbers(3), 8)
    assert len(loader) == 1
    assert sorted(passes(loader)[0][0]) == [0, 1, 2]


def test_ranks_share_the_samples_evenly() -> None:
    loaders = [ResumableLoader(Numbers(11), 2, rank=rank, ranks=2) for rank in range(2)]
    assert len(loaders[0]) == len(loaders[1]) == 2
    one, two = ({i for batch in passes(loader)[0] for i in batch} for loader in loaders)
    assert len(one) == len(two) == 4
    assert not one & two


def test_lightning_sees_every_batch_of_every_epoch() -> None:
    class Counter(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen: list[int] = []
            self.validated = 0

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.seen += batch.tolist()
            return self.weight.sum()

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.validated += len(batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Counter()
    trainer = Trainer(
        max_steps=12, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=4, check_val_every_n_epoch=None, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, ResumableLoader(Numbers(12), 4), ResumableLoader(Numbers(5), 2, shuffle=False))
    assert module.seen == [i for batch in flat(ResumableLoader(Numbers(12), 4), 4) for i in batch]
    assert module.validated == 3 * 5


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_finds_broken_is_still_one_line(tmp_path: Path, workers: int) -> None:
    path = write_dataset(tmp_path, shards=1, episodes=1) / "spatial-000000.tar"
    [video] = [name for name in damage.members(path) if name.endswith(".mp4")]
    damage.change(path, video, lambda data: data[:-500] + bytes(500))
    samples = SequenceSamples(EpisodeStore(tmp_path), [0], 6, 1, FrameCache(0.0))
    with pytest.raises(UserError) as caught:
        list(ResumableLoader(samples, 4, num_workers=workers))
    assert str(caught.value).startswith(f"{path}: episode spatial-000000: ")
    assert "Traceback" not in str(caught.value)
