from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.synthetic import make_episode
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import finish_dataset, shard_path, write_shard
from wovr.data.training.demonstrations import DemonstrationBatch, DemonstrationData
from wovr.errors import UserError

FRAMES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 episodes of two tasks; every third succeeds, at frame 9 of 12."""
    folder = tmp_path_factory.mktemp("demos")
    for shard in range(2):
        numbers = range(shard * 6, shard * 6 + 6)
        episodes = [make_episode(number, FRAMES, (16, 24)) for number in numbers]
        write_shard(shard_path(folder, "spatial", shard), episodes)
    finish_dataset(folder)
    return folder


def data(folder: Path, **options: Any) -> DemonstrationData:
    module = DemonstrationData(str(folder), **{"batch_size": 4, "val_fraction": 0.0} | options)
    module.setup("fit")
    return module


def every(loader: Any) -> DemonstrationBatch:
    batches = list(loader)
    return DemonstrationBatch(
        torch.cat([batch.image for batch in batches]),
        [text for batch in batches for text in batch.instruction],
        torch.cat([batch.actions for batch in batches]),
        torch.cat([batch.mask for batch in batches]),
    )


def test_samples_are_pictures_and_the_actions_that_followed(folder: Path) -> None:
    module = data(folder, keep_past_success=True, batch_size=1)
    store = EpisodeStore(folder)
    batch = every(module.train_dataloader())
    succeeded = [i for i, entry in enumerate(store.entries) if entry.succeeded]
    assert len(batch.image) == len(succeeded) * (FRAMES - 1)
    for i in succeeded:
        frames, actions = store.frames(i), store.actions(i)
        for t in range(FRAMES - 1):
            [row] = [n for n in range(len(batch.image)) if np.array_equal(batch.actions[n, 0], actions[t])]
            ahead = actions[t : t + 8]
            assert np.array_equal(batch.image[row], frames[t])
            assert np.array_equal(batch.actions[row, : len(ahead)], ahead)
            assert batch.mask[row].tolist() == [True] * len(ahead) + [False] * (8 - len(ahead))
            assert not batch.actions[row, len(ahead) :].any()
            assert batch.instruction[row] == store.entries[i].meta.instruction


def test_frames_past_success_are_left_out(folder: Path) -> None:
    batch = every(data(folder, batch_size=1).train_dataloader())
    assert len(batch.image) == 4 * 9
    assert batch.mask.sum(1).min() == 3  # the actions past it stay in the chunk


def test_frames_beyond_the_cache_are_decoded_and_the_same(folder: Path) -> None:
    whole = every(data(folder).train_dataloader())
    for cache_mb in (0.0, 0.02):
        partly = every(data(folder, cache_mb=cache_mb).train_dataloader())
        assert torch.equal(partly.image, whole.image)
        assert torch.equal(partly.actions, whole.actions)


def test_filters(folder: Path) -> None:
    assert len(data(folder, only_success=False).split()[0]) == 12
    assert len(data(folder, tasks="1").split()[0]) == 2
    assert len(data(folder, suites="spatial, goal").split()[0]) == 4
    assert len(data(folder, per_task=1).split()[0]) == 2


def test_split_is_by_episode_and_seeded(folder: Path) -> None:
    train, val = data(folder, only_success=False, val_fraction=0.4, per_task=3).split()
    store = EpisodeStore(folder)
    assert [sum(store.entries[i].meta.task == task for i in train) for task in (0, 1)] == [3, 3]
    assert [sum(store.entries[i].meta.task == task for i in val) for task in (0, 1)] == [2, 2]
    assert not set(train) & set(val)
    assert data(folder, only_success=False, val_fraction=0.4, per_task=3).split() == (train, val)
    assert data(folder, only_success=False, val_fraction=0.4, per_task=3, seed=1).split() != (train, val)


def test_the_only_demonstration_of_a_task_is_trained_on(folder: Path) -> None:
    module = data(folder, per_task=1, val_fraction=0.3)
    train, val = module.split()
    assert len(train) == 2
    assert val == []
    assert module.val_dataloader() == []


def test_record_is_plain_and_names_the_data(folder: Path) -> None:
    found = data(folder).record()
    assert found["fingerprint"] == EpisodeStore(folder).fingerprint
    assert (found["action_dim"], found["image_size"]) == (4, [16, 24])
    assert len(found["action_statistics"]["mean"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suites": "goal"}, "none of 12 episodes passes"),
        ({"tasks": "7"}, "none of 12 episodes passes"),
        ({"tasks": "one"}, "data.tasks is 'one'"),
        ({"val_fraction": 1.0}, "data.val_fraction is 1.0"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"per_task": 0}, "data.per_task 0"),
    ],
)
def test_bad_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data(folder, **options)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        data(tmp_path / "nothing")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_pinned_for_a_gpu(folder: Path) -> None:
    batch = next(iter(data(folder).train_dataloader()))
    assert batch.image.is_pinned() and batch.actions.is_pinned() and batch.mask.is_pinned()  # noqa: PT018
