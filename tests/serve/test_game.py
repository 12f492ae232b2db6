"""What is played: chunks and single actions, rewinding and branches to the bit, who drives, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands.point_world import POINT
from tests.envs.point_env import PointEnv
from tests.models.world_model.tiny_world import tiny_world
from tests.serve.tiny_play import engine_of, write_parts
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.models.world_model.rollout import Imagination
from wovr.serve.engine import EXPERT, Engine
from wovr.serve.game import HAND, MOST_BRANCHES, Game
from wovr.serve.keeping import Keeper, film
from wovr.serve.starts import MOST_ACTIONS
from wovr.types import StartState

RIGHT, UP = np.array([1.0, 0.0], np.float32), np.array([0.0, 0.5], np.float32)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_of(write_parts(tmp_path_factory.mktemp("play"))) as engine:
        yield engine


def begin(engine: Engine, episode: int = 0, frame: int = 0, seed: int = 5) -> Game:
    start = engine.starts.start("spatial", 0, episode, frame, engine.memory)
    return Game(engine, engine.begin(start, seed), seed)


def drive(game: Game, actions: np.ndarray) -> list[bytes]:
    """Every frame that a hand sees, imagined and real."""
    frames = []
    for action in actions:
        game.steer(action)
        frames.append(pictures(game, game.at))
    return frames


def pictures(game: Game, at: int) -> bytes:
    seen = game.seen(at)
    return seen.frame.tobytes() + (b"" if seen.real is None else seen.real.tobytes())


def some_actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


def test_finished_chunks_were_imagined_under_what_was_executed(engine: Engine) -> None:
    game = begin(engine)
    actions = some_actions(24)
    drive(game, actions)
    imagination = Imagination(tiny_world(action_dim=2))
    start = game.beginning.start
    assert start.reference is not None
    imagination.start(start.reference[None], seeds=[5])
    expected = np.concatenate([imagination.step(actions[None, i : i + 8])[0].numpy() for i in (0, 8, 16)])
    np.testing.assert_array_equal(np.stack([game.seen(at).frame for at in range(1, 25)]), expected)


def test_the_simulator_follows_the_same_actions(engine: Engine) -> None:
    game = begin(engine, frame=3)
    actions = some_actions(13)
    drive(game, actions)
    env = PointEnv(16)
    state = engine.starts.store.sim_state(0)
    assert state is not None
    first = env.start(StartState("spatial", 0, sim_state=state[3]))["image"]
    frames = [first] + [env.step(action)[0]["image"] for action in actions]
    for at, frame in enumerate(frames):
        real = game.seen(at).real
        assert real is not None
        np.testing.assert_array_equal(real, frame)
    assert game.seen(0).values["apart"] == 0  # begun from a stored frame, without loss here


def test_an_action_that_is_held_is_imagined_once_a_chunk(engine: Engine) -> None:
    game = begin(engine)
    before = engine.env.imagined_frames
    drive(game, np.stack([RIGHT] * 16))
    assert engine.env.imagined_frames - before == 16
    drive(game, np.stack([RIGHT, UP, UP]))
    assert engine.env.imagined_frames - before == 32  # 16, then a chunk, then the same once more


def test_rewound_and_driven_the_same_way_it_is_the_same_to_the_bit(engine: Engine) -> None:
    game = begin(engine)
    actions = some_actions(20)
    drive(game, actions)
    shown = [pictures(game, at) for at in range(21)]
    for at in (0, 3, 8, 13):
        game.rewind(at)
        assert drive(game, actions[at:]) == shown[at + 1 :]
        assert list(game.branches) == [0]
    # From nothing, in another game, too.
    other = begin(engine)
    drive(other, actions)
    assert [pictures(other, at) for at in range(21)] == shown


def test_another_action_begins_a_branch_and_the_old_one_stays(engine: Engine) -> None:
    game = begin(engine)
    actions = some_actions(20)
    drive(game, actions)
    shown = [pictures(game, at) for at in range(21)]
    game.rewind(11)
    drive(game, some_actions(6, seed=9))
    assert (game.branch.number, game.branch.parent, game.branch.left_at, game.branch.length) == (1, 0, 11, 17)
    np.testing.assert_array_equal(game.actions(), np.concatenate([actions[:11], some_actions(6, seed=9)]))
    assert [pictures(game, at) for at in range(9)] == shown[:9]
    straight = begin(engine)
    drive(straight, game.actions())
    assert [pictures(game, at) for at in range(18)] == [pictures(straight, at) for at in range(18)]
    game.rewind(20, branch=0)
    assert [pictures(game, at) for at in range(21)] == shown
    course = game.course()
    assert [branch["number"] for branch in course["branches"]] == [0, 1]
    assert len(course["series"]["success_probability"]) == len(course["drivers"]) == 21


def test_other_noise_is_a_branch_with_the_same_actions_and_the_same_reality(engine: Engine) -> None:
    game = begin(engine)
    actions = some_actions(11)
    drive(game, actions)
    before = [game.seen(at) for at in range(12)]
    game.redraw()
    after = [game.seen(at) for at in range(12)]
    assert game.branch.number == 1
    np.testing.assert_array_equal(game.actions(), actions)
    assert all(np.array_equal(a.frame, b.frame) for a, b in zip(before[:9], after[:9], strict=True))
    assert all(not np.array_equal(a.frame, b.frame) for a, b in zip(before[9:], after[9:], strict=True))
    for a, b in zip(before, after, strict=True):
        assert a.real is not None
        assert b.real is not None
        np.testing.assert_array_equal(a.real, b.real)
    game.rewind(0)
    with pytest.raises(UserError, match="nothing was imagined yet"):
        game.redraw()


def test_a_policy_drives_and_the_hand_takes_over_within_a_chunk(engine: Engine) -> None:
    game = begin(engine)
    game.decide("clone", 0.0)
    chosen = engine.act("clone", game.beginning.start, game.beginning.frame, 0.0, [0])
    for _ in range(3):
        assert game.decided("clone")
        game.advance()
    assert not game.decided(EXPERT)
    game.steer(RIGHT)
    np.testing.assert_array_equal(game.actions(), np.concatenate([chosen[:3], [RIGHT]]))
    assert [game.seen(at).driver for at in range(5)] == ["", "clone", "clone", "clone", HAND]
    assert not game.decided("clone")
    seen = game.seen().frame
    game.decide("clone", 0.0)  # from what is seen now, to the end of the chunk
    for _ in range(4):
        game.advance()
    again = engine.act("clone", game.beginning.start, seen, 0.0, [0])
    np.testing.assert_array_equal(game.actions()[4:], again[:4])
    assert not game.decided("clone")


def test_after_a_rewind_a_policy_decides_anew(engine: Engine) -> None:
    game = begin(engine)
    for _ in range(2):
        game.decide("clone", 1.5)
        for _ in range(8):
            game.advance()
    first = game.actions()
    game.rewind(8)
    assert not game.decided("clone")
    game.decide("clone", 1.5)
    for _ in range(8):
        game.advance()
    assert game.branch.number == 1
    np.testing.assert_array_equal(game.actions()[:8], first[:8])
    assert not np.array_equal(game.actions(), first)


def test_the_expert_sees_the_simulator(engine: Engine) -> None:
    game = begin(engine)
    game.decide(EXPERT, 0.0)
    game.advance()
    env = PointEnv(16)
    state = engine.starts.store.sim_state(0)
    assert state is not None
    env.start(StartState("spatial", 0, sim_state=state[0]))
    np.testing.assert_array_equal(game.actions()[0], env.expert_action())


def test_a_game_ends_where_an_episode_is_full(engine: Engine) -> None:
    game = begin(engine, frame=5)
    assert game.most == MOST_ACTIONS - 5
    game.most = 11  # not played for a minute
    drive(game, some_actions(11))
    assert game.over
    with pytest.raises(UserError, match="no action left"):
        game.steer(RIGHT)
    game.rewind(3)
    game.steer(RIGHT)


def test_branches_that_were_left_longest_ago_go_first(engine: Engine) -> None:
    game = begin(engine)
    drive(game, some_actions(2))
    for number in range(MOST_BRANCHES + 2):
        game.rewind(1)
        drive(game, some_actions(1, seed=100 + number))
    assert len(game.branches) == MOST_BRANCHES
    assert max(game.branches) == MOST_BRANCHES + 2
    assert 0 not in game.branches
    with pytest.raises(UserError, match="no branch 0"):
        game.rewind(0, branch=0)
    with pytest.raises(UserError, match="has no frame 9"):
        game.rewind(9)


def test_numbers_beside_a_frame(engine: Engine) -> None:
    game = begin(engine)
    drive(game, some_actions(9))
    value, classifier = engine.value, engine.env.classifier
    assert value is not None
    frames = np.stack([game.beginning.frame, *(game.seen(at).frame for at in range(10))])
    clip, task = torch.from_numpy(frames)[None], [("spatial", 0)]
    for judge, name in ((value, "value"), (classifier, "success_probability")):
        expected = judge.probability(clip, task)[0].detach().numpy()[1:]
        found = [game.seen(at).values[name] for at in range(1, 10)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    one = game.seen()
    assert one.real is not None
    differs = (np.abs(one.frame.astype(int) - one.real.astype(int)) > 32).any(-1)
    assert one.values["apart"] == pytest.approx(differs.mean())


def test_what_was_played_is_kept(engine: Engine, tmp_path: Path) -> None:
    game = begin(engine)
    keeper = Keeper(tmp_path / "kept", "abc")
    with pytest.raises(UserError, match="nothing was played yet"):
        keeper.keep(game, "mp4")
    drive(game, some_actions(10))
    imagined, real, movie = (keeper.keep(game, what) for what in ("imagined", "real", "mp4"))
    assert keeper.films == {movie.name: movie}
    assert movie.stat().st_size > 500
    assert film(game).shape == (11, 16, 34, 3)
    for folder, source in ((imagined, "imagined by abc"), (real, POINT)):
        episode = EpisodeStore(folder).read(0)
        np.testing.assert_array_equal(episode.actions, game.actions())
        assert (episode.meta.source, episode.meta.policy, episode.meta.seed) == (source, HAND, 5)
        assert episode.frames.shape == (11, 16, 16, 3)
    env = PointEnv(16)
    stored = EpisodeStore(real).read(0)
    assert stored.sim_state is not None
    env.start(StartState("spatial", 0, sim_state=stored.sim_state[0]))
    for action, state in zip(stored.actions, stored.sim_state[1:], strict=True):
        env.step(action)
        np.testing.assert_array_equal(env.sim_state(), state)


def test_without_a_simulator(tmp_path: Path) -> None:
    with engine_of(write_parts(tmp_path), simulator=False) as engine:
        assert engine.drivers == ["clone"]
        game = begin(engine)
        drive(game, some_actions(9))
        assert game.seen().real is None
        assert "apart" not in game.course()["series"]
        with pytest.raises(UserError, match="no simulator"):
            Keeper(tmp_path / "kept", "abc").keep(game, "real")
        with pytest.raises(UserError, match="expert needs the simulator"):
            game.decide(EXPERT, 0.0)
        assert film(game).shape == (10, 16, 16, 3)


def test_a_simulator_that_dies_ends_no_game(tmp_path: Path) -> None:
    with engine_of(write_parts(tmp_path)) as engine:
        game = begin(engine)
        drive(game, some_actions(3))
        assert engine.simulator is not None
        engine.simulator.close()
        drive(game, some_actions(8, seed=1))
        assert game.at == 11
        assert game.seen(11).real is None
        assert game.seen(0).real is not None
        note = begin(engine).beginning.note
        assert "no simulator beside: environment" in note


def test_an_environment_without_stored_states_is_left_alone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.simulator is not None
    monkeypatch.setattr(engine.simulator.env, "reset", lambda **_: pytest.fail("it was moved"))
    start = replace(engine.starts.start("spatial", 0, 0, 0), sim_state=None)
    found = engine.begin(start, 0)
    assert found.real is None
    assert "these episodes hold no states to put it into" in found.note
