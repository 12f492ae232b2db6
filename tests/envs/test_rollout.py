"""The driver: every episode once, the same whoever computes it, as a plain loop would have run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.envs.point_env import SUITES, PointEnv
from wovr.envs.actors.base import ExpertActor, RandomActor
from wovr.envs.actors.names import make_actor, policy_name
from wovr.envs.actors.policy import PolicyActor
from wovr.envs.episodes import choose_init_states, plan_episodes
from wovr.envs.rollout import Rollout, roll_out
from wovr.envs.workers.vector import WorkerVectorEnv
from wovr.errors import UserError
from wovr.models.checkpoint import record
from wovr.models.policies.tiny_vla import TinyVLA
from wovr.types import MAX_FRAMES, TaskInfo

POINT = "tests.envs.point_env:PointEnv"
PLAN = plan_episodes(SUITES["spatial"], 8, ":", seed=3)


def make_policy(action_dim: int = 2, seed: int = 0) -> TinyVLA:
    torch.manual_seed(seed)
    return TinyVLA(action_dim=action_dim, bins=9, channels=(8, 8), width=16, layers=1, text_width=16, buckets=64).eval()


def save_policy(path: Path, policy: TinyVLA) -> Path:
    state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    torch.save({"state_dict": state, "wovr": record({"policy": policy}, data={})}, path)
    return path


@pytest.fixture(scope="module", params=[1, 3], ids=["one worker", "three workers"])
def env(request: pytest.FixtureRequest) -> Iterator[WorkerVectorEnv]:
    env = WorkerVectorEnv(POINT, 3, request.param, {"wind": 0.02}, record_states=True, steps_after_success=2)
    yield env
    env.close()


@pytest.fixture(scope="module")
def one_worker() -> Iterator[WorkerVectorEnv]:
    env = WorkerVectorEnv(POINT, 3, 1, {"wind": 0.02}, record_states=True, steps_after_success=2)
    yield env
    env.close()


def assert_equal(found: list[Rollout], expected: list[Rollout]) -> None:
    assert [rollout.number for rollout in found] == [rollout.number for rollout in expected]
    for a, b in zip(found, expected, strict=True):
        for name in ("frames", "actions", "success", "sim_state"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        assert a.info.keys() == b.info.keys()
        assert all(np.array_equal(a.info[name], b.info[name]) for name in a.info)


@pytest.mark.parametrize(
    "actor", [ExpertActor(), RandomActor(), PolicyActor(make_policy(), "tiny", 1.3)], ids=lambda a: a.name
)
def test_the_number_of_workers_changes_nothing(env, one_worker, actor) -> None:
    assert_equal(list(roll_out(env, actor, PLAN, seed=5)), list(roll_out(one_worker, actor, PLAN, seed=5)))


def test_episodes_are_what_a_plain_loop_gives(env) -> None:
    steps = []
    rollouts = sorted(roll_out(env, ExpertActor(), PLAN, 5, steps.append), key=lambda rollout: rollout.number)
    assert [rollout.number for rollout in rollouts] == list(range(8))
    assert sum(steps) == sum(len(rollout.actions) for rollout in rollouts)
    for rollout, planned in zip(rollouts, PLAN, strict=True):
        assert rollout.start == planned.start
        assert rollout.instruction == SUITES["spatial"][planned.start.task].instruction
        assert rollout.success.dtype == bool
        assert not rollout.success[0]
        assert len(rollout.frames) == len(rollout.success) == len(rollout.sim_state) == len(rollout.actions) + 1
        simulator = PointEnv(wind=0.02)
        seed = int(np.random.SeedSequence([5, rollout.number, 1]).generate_state(1)[0])
        observation, _ = simulator.reset(seed=seed, options={"start": rollout.start})
        assert (observation["image"] == rollout.frames[0]).all()
        for step, action in enumerate(rollout.actions):
            assert (simulator.expert_action() == action).all()
            observation, _, _, _, info = simulator.step(action)
            assert (observation["image"] == rollout.frames[step + 1]).all()
            assert (simulator.sim_state() == rollout.sim_state[step + 1]).all()
            assert info["success"] == rollout.success[step + 1]
        assert rollout.steps_to_success == rollout.success.tolist().index(True)
        assert len(rollout.actions) <= rollout.steps_to_success + 2


def test_what_is_drawn_depends_on_seed_and_number_only(one_worker) -> None:
    whole = {r.number: r for r in roll_out(one_worker, RandomActor(), PLAN, seed=5)}
    some = {r.number: r for r in roll_out(one_worker, RandomActor(), PLAN[4:6], seed=5)}
    assert set(some) == {4, 5}
    assert all(np.array_equal(some[number].frames, whole[number].frames) for number in some)
    other = {r.number: r for r in roll_out(one_worker, RandomActor(), PLAN[4:6], seed=6)}
    assert not np.array_equal(other[4].actions[:5], whole[4].actions[:5])
    assert not np.array_equal(whole[4].actions[:5], whole[5].actions[:5])


def test_an_abandoned_call_leaves_no_trace(one_worker) -> None:
    expected = list(roll_out(one_worker, RandomActor(), PLAN[:2], seed=1))
    next(roll_out(one_worker, ExpertActor(), PLAN, seed=1))
    assert_equal(list(roll_out(one_worker, RandomActor(), PLAN[:2], seed=1)), expected)
    assert list(roll_out(one_worker, RandomActor(), [], seed=1)) == []


def test_policies_act_with_the_noise_of_their_episode(one_worker) -> None:
    policy = make_policy()
    (alone,) = roll_out(one_worker, PolicyActor(policy, "tiny"), PLAN[2:3], seed=5)
    (crowd,) = (r for r in roll_out(one_worker, PolicyActor(policy, "tiny"), PLAN, seed=5) if r.number == 2)
    assert np.array_equal(alone.actions, crowd.actions)  # same tokens, though the row and the batch differ
    assert alone.info["tokens"].shape == alone.actions.shape
    assert alone.info["log_probs"].dtype == np.float32
    assert np.array_equal(policy.tokenizer.decode(torch.from_numpy(alone.info["tokens"])).numpy(), alone.actions)
    greedy = [list(roll_out(one_worker, PolicyActor(policy, "tiny", 0.0), PLAN[:3], seed=s)) for s in (1, 2)]
    first = [rollout.actions[:8] for rollout in greedy[0]]
    assert all(np.array_equal(a, b.actions[:8]) for a, b in zip(first, greedy[1], strict=True))  # no seed in it


def test_policies_that_do_not_fit(one_worker, tmp_path: Path) -> None:
    checkpoint = save_policy(tmp_path / "wide.ckpt", make_policy(action_dim=3))
    with pytest.raises(UserError, match=r"wide.ckpt: the policy's actions have 3 dimensions, the environment takes 2"):
        make_actor(str(checkpoint), one_worker)
    with pytest.raises(UserError, match=r"missing.ckpt: no such file"):
        make_actor(str(tmp_path / "missing.ckpt"), one_worker)
    good = save_policy(tmp_path / "good.ckpt", make_policy())
    with pytest.raises(UserError, match="--device 'nonsense' cannot be used"):
        make_actor(str(good), one_worker, device="nonsense")
    assert policy_name(str(good)) == make_actor(str(good), one_worker, device="cpu").name
    assert policy_name("expert") == make_actor("expert", one_worker).name == "expert"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_policy_of_nan_is_refused(one_worker, temperature: float) -> None:
    policy = make_policy()
    torch.nn.init.constant_(policy.head.weight, float("nan"))
    with pytest.raises(UserError, match="policy broken: its log-probabilities are not finite"):
        list(roll_out(one_worker, PolicyActor(policy, "broken", temperature), PLAN, seed=0))


def test_plan_takes_tasks_in_turn_and_init_states_without_repetition() -> None:
    plan = plan_episodes(SUITES["spatial"], 30, "5:13", seed=7)
    assert [episode.number for episode in plan] == list(range(30))
    assert [episode.start.task for episode in plan] == [number % 3 for number in range(30)]
    for task in range(3):
        states = [episode.start.init_state for episode in plan if episode.start.task == task]
        assert sorted(states[:8]) == list(range(5, 13))
        assert len(set(states[8:])) == len(states[8:])
    assert plan == plan_episodes(SUITES["spatial"], 30, "5:13", seed=7)
    assert plan[:12] == plan_episodes(SUITES["spatial"], 12, "5:13", seed=7)
    assert plan != plan_episodes(SUITES["spatial"], 30, "5:13", seed=8)
    orders = [[e.start.init_state for e in plan if e.start.task == task][:8] for task in range(3)]
    assert orders[0] != orders[1]
    long = TaskInfo("long", 0, "far", "go far", 2000, 5)
    assert plan_episodes([long], 1, ":", 0)[0].start.horizon == MAX_FRAMES - 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":", range(20)),
        ("3:7", range(3, 7)),
        (":-10", range(10)),
        ("-4:", range(16, 20)),
        (":60%", range(12)),
        ("60%:83%", range(12, 16)),
        ("-10%:", range(18, 20)),
    ],
)
def test_slices_of_init_states(text: str, expected: range) -> None:
    assert list(choose_init_states(text, SUITES["spatial"][0])) == list(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("40:50", "reaches beyond"),
        ("5", "no slice"),
        ("0:10:2", "no slice"),
        ("7:7", "selects no"),
        ("0%:4%", "selects no"),
        ("10%:101%", "reaches beyond"),
        ("1.5%:", "no slice"),
        ("-30:", "reaches beyond"),
    ],
)
def test_bad_slices_of_init_states(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"{message}.*has initial states 0 to 19"):
        plan_episodes(SUITES["spatial"], 3, text, 0)
    with pytest.raises(UserError, match="--episodes is 0"):
        plan_episodes(SUITES["spatial"], 0, ":", 0)
