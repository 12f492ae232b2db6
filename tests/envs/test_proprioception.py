"""Proprioception for policies: the same in simulators and in imagination, through collecting, RL and checkpoints."""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.envs.imagined.worlds import SUITE, Starts, begin, make_env, some_actions, start
from tests.envs.point_env import PointEnv
from tests.envs.test_rollout import POINT, save_policy
from tests.models.world_model.tiny_world import following_world
from wovr.cli import main
from wovr.data.store.reader import EpisodeStore
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.cut_simulators import CutSimulators
from wovr.envs.grpo_rollouts import PlannedStarts, RolloutCollector
from wovr.envs.imagined.env import ImaginedVectorEnv
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.models.policies.loading import load_policy
from wovr.models.policies.tiny_vla import TinyVLA
from wovr.tasks.grpo.training import GRPOTraining
from wovr.types import StartState


def policy_of(proprio_dim: int, action_dim: int = 2) -> TinyVLA:
    torch.manual_seed(0)
    small = {"bins": 9, "channels": (8, 8), "width": 16, "layers": 1, "text_width": 16, "buckets": 64}
    policy = TinyVLA(action_dim=action_dim, proprio_dim=proprio_dim, **small).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        policy.head.weight.normal_()  # a policy with opinions
    if proprio_dim:
        policy.fit_proprio(torch.zeros(proprio_dim), torch.full((proprio_dim,), 0.5))
    return policy


def proprio_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=5).astype(np.float32)


def imagined(num_envs: int = 3, **arguments: object) -> ImaginedVectorEnv:
    env = make_env(num_envs, world=following_world(), **arguments)
    begin(env, *[start(row, proprio=proprio_of(row)) for row in range(num_envs)])
    return env


@pytest.fixture
def simulators():
    with closing(WorkerVectorEnv(POINT, 3, 2, {})) as env:
        yield env


def test_simulators_and_imagination_observe_it_alike(simulators: WorkerVectorEnv) -> None:
    simulators.reset(options={"start_states": [StartState("spatial", row, row) for row in range(3)]})
    dream = imagined()
    for env, dim in ((simulators, 3), (dream, 5)):
        assert set(env.observation_dict()) == {"image", "instruction"}  # nobody has asked for it
        assert env.observe().proprio is None
        env.show_proprio(dim)
        env.show_proprio(dim)
        found = env.observation_dict()["proprio"]
        assert found.dtype == np.float32
        assert found.shape == (3, dim)
        assert env.single_observation_space["proprio"].shape == (dim,)  # type: ignore[index]
        assert env.observation_space["proprio"].contains(found)  # type: ignore[index]
        observation, *_ = env.step(np.full((3, env.action_dim), 0.5, np.float32))
        assert observation["proprio"].shape == (3, dim)
        assert np.abs(observation["proprio"] - found).max() > 1e-3


def test_a_simulators_own(simulators: WorkerVectorEnv) -> None:
    starts = [StartState("spatial", 0, 0), None, StartState("spatial", 2, 5)]
    simulators.show_proprio(3)
    simulators.reset(options={"start_states": starts})
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 8, 2)).astype(np.float32)
    simulators.step_chunk(actions)
    found = simulators.observe().proprio
    assert found is not None
    for row in (0, 2):
        plain = PointEnv()
        plain.start(starts[row])  # type: ignore[arg-type]
        for action in actions[row]:
            plain.step(action)
        np.testing.assert_array_equal(found[row], plain.proprio())
    assert not found[1].any()


@pytest.mark.parametrize(("says", "dim", "there"), [("none", 3, "none"), ("place", 8, "3 numbers of it")])
def test_a_simulator_that_cannot_give_it_is_refused(says: str, dim: int, there: str) -> None:
    with closing(WorkerVectorEnv(POINT, 1, 1, {"proprio": says})) as env:
        env.show_proprio(dim)
        with pytest.raises(UserError, match=rf"takes {dim} numbers of proprioception, environment .* gives {there};"):
            env.reset(options={"start_states": [StartState("spatial", 0, 0)]})


def test_imagination_gives_what_its_world_model_predicts() -> None:
    env = imagined()
    env.show_proprio(5)
    np.testing.assert_array_equal(env.observe().proprio, [proprio_of(row) for row in range(3)])
    actions = some_actions(3)
    before = env.snapshot()
    model, rollouts = env.imagination.model, before.rollouts
    assert rollouts is not None
    inputs = model.inputs(rollouts.context, torch.from_numpy(actions))
    expected = model.conditioning.predicted(inputs)["proprio"].detach().numpy()  # (N, K, P)
    env.step_chunk(actions)
    np.testing.assert_allclose(env.observe().proprio, expected[:, -1], rtol=1e-5, atol=1e-5)
    assert env.snapshot().rollouts is not None
    np.testing.assert_array_equal(env.observe().proprio, env.snapshot().rollouts.context.state["proprio"])  # type: ignore[union-attr]
    env.restore(before)
    for step in range(8):
        env.step(actions[:, step])
        np.testing.assert_allclose(env.observe().proprio, expected[:, step], rtol=1e-4, atol=1e-4)


def test_a_row_that_has_ended_keeps_it_and_a_new_one_has_its_own() -> None:
    env = imagined(2, starts=Starts(horizon=3))
    env.show_proprio(5)
    env.step_chunk(some_actions(2))  # cut after three actions
    ended = env.observe().proprio
    assert ended is not None
    env.step_chunk(some_actions(2))
    np.testing.assert_array_equal(env.observe().proprio, ended)
    first = [start(7, proprio=proprio_of(7)), None]
    env.reset(seed=[1, 2], options={"start_states": first, "reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(env.observe().proprio, [proprio_of(7), ended[1]])


def test_a_world_model_that_cannot_predict_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"predicts no proprioception, the policy takes 5 numbers; give one that does"):
        make_env().show_proprio(5)
    with pytest.raises(UserError, match=r"predicts 5 numbers of proprioception, the policy takes 3 numbers"):
        imagined().show_proprio(3)


@pytest.mark.parametrize("where", ["imagination", "simulators"])
def test_rl_learns_from_what_the_policy_saw(where: str, simulators: WorkerVectorEnv) -> None:
    dream = where == "imagination"
    policy = policy_of(5, 3) if dream else policy_of(3)
    env = imagined() if dream else simulators
    info = Starts().tasks if dream else list(simulators.suites[SUITE])
    source = PlannedStarts(info, ":", 2, 0)
    if dream:

        class Source:
            def starts(self, update: int, groups: int) -> list[StartState]:
                return [start(number, proprio=proprio_of(number)) for number in range(groups)]

        source = Source()  # type: ignore[assignment]
    collector = RolloutCollector(env, PolicyActor(policy, "p"), source, 2, 3, 1, seed=0)
    batch = collector.collect(0)
    first = batch.trajectories[0]
    assert first.proprio is not None
    assert first.proprio.shape == (len(first.images), policy.proprio_dim)
    assert len(np.unique(first.proprio, axis=0)) > 1
    task = GRPOTraining(policy)
    update = task.prepare(batch)
    [samples] = task.samples(update, range(6), torch.ones(update.mask.shape))
    with torch.no_grad():
        again = task.log_probs(policy, samples).log_probs
        executed = samples.log_probs != 0  # the others come after the end
        torch.testing.assert_close(again[executed], samples.log_probs[executed], rtol=1e-4, atol=1e-4)
        assert samples.observation.proprio is not None
        samples.observation.proprio = samples.observation.proprio + 1
        assert (task.log_probs(policy, samples).log_probs - again).abs().max() > 1e-2


def test_simulators_that_are_cut_give_it_too(simulators: WorkerVectorEnv) -> None:
    class Judge:
        window, tasks = 1, [("spatial", 0)]

    env = CutSimulators(simulators, Judge(), None)  # type: ignore[arg-type]
    env.show_proprio(3)
    env.reset(options={"start_states": [StartState("spatial", 0, row) for row in range(3)]})
    assert env.observation_dict()["proprio"].shape == (3, 3)


def test_from_demonstrations_to_a_success_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = ("--env", POINT, "--num_envs", "3", "--workers", "1")
    collect = partial(lambda *words: main(["collect", *point, "--suite", "spatial", "--episodes", "6", *words]))
    assert collect("--policy", "expert", "--out", str(tmp_path / "demos")) == 0
    small = '{"bins": 9, "channels": [8, 8], "width": 16, "layers": 1, "text_width": 16, "buckets": 64, '
    network = small + '"action_dim": null, "proprio_dim": null}'
    fit = ["fit", "--config", "bc", "--data.folder", str(tmp_path / "demos"), "--trainer.max_steps", "4"]
    fit += ["--trainer.val_check_interval", "null", "--trainer.accelerator", "cpu", "--out", str(tmp_path / "bc")]
    assert main([*fit, "--model.policy.init_args", network]) == 0
    checkpoint = tmp_path / "bc" / "checkpoints" / "last.ckpt"
    policy, store = load_policy(checkpoint), EpisodeStore(tmp_path / "demos")
    assert policy.proprio_dim == 3
    seen = [store.proprio(index)[: int(store.success(index).argmax())] for index in range(6)]  # type: ignore[index]
    np.testing.assert_allclose(policy.proprio_mean, np.concatenate(seen).mean(0), atol=1e-6)
    np.testing.assert_allclose(policy.proprio_spread[:2], np.concatenate(seen).std(0)[:2], rtol=1e-5)
    assert policy.proprio_spread[2] == pytest.approx(1e-3)  # it stood still
    assert collect("--policy", str(checkpoint), "--out", str(tmp_path / "base")) == 0
    capsys.readouterr()
    assert collect("--policy", str(checkpoint), "--env_args.proprio", "none", "--out", str(tmp_path / "none")) == 2
    error = capsys.readouterr().err
    assert "takes 3 numbers of proprioception, environment" in error
    assert error.count("\n") == 1
    rl = [
        "rl",
        "--config",
        "rl_online",
        "--policy",
        str(checkpoint),
        *point,
        "--suite",
        "spatial",
        "--eval_env",
        "null",
    ]
    rl += ["--groups", "2", "--group_size", "2", "--updates", "1", "--trainer.accelerator", "cpu"]
    assert main([*rl, "--out", str(tmp_path / "rl")]) == 0
    assert json.loads((tmp_path / "rl" / "metrics.json").read_text())["rollouts"] == 4
    assert load_policy(tmp_path / "rl" / "checkpoints" / "last.ckpt").proprio_dim == 3


def test_episodes_of_another_robot_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = ("--env", POINT, "--num_envs", "2", "--workers", "1", "--suite", "spatial", "--policy", "expert")
    assert main(["collect", *point, "--episodes", "2", "--out", str(tmp_path / "demos")]) == 0
    fit = ["fit", "--config", "bc", "--data.folder", str(tmp_path / "demos"), "--out", str(tmp_path / "bc")]
    capsys.readouterr()
    assert main([*fit, "--model.policy.init_args.proprio_dim", "8"]) == 2
    assert "proprio_dim is 8 in the model and 3 in the data; set model.policy" in capsys.readouterr().err


def test_a_policy_without_is_what_it_was(tmp_path: Path) -> None:
    without = policy_of(0)
    assert not [name for name in without.state_dict() if "proprio" in name]
    checkpoint = save_policy(tmp_path / "p.ckpt", policy_of(3))
    again = load_policy(checkpoint)
    assert torch.equal(again.proprio_spread, torch.full((3,), 0.5))
    with pytest.raises(UserError, match="takes 3 numbers of proprioception, there is none"):
        again(np.zeros((2, 16, 16, 3), np.uint8), ["a", "b"])
    with pytest.raises(UserError, match="proprio_dim is -1"):
        policy_of(-1)
    # Far out of what was demonstrated it is no farther than five spreads.
    images, words = np.zeros((1, 16, 16, 3), np.uint8), ["a"]
    with torch.no_grad():
        far, farther = (again(images, words, proprio=np.full((1, 3), value, np.float32)) for value in (2.5, 1e6))
    assert torch.equal(far, farther)
