"""The imagined environment (paper, section 4.2): a world model and a success classifier behind the one protocol.

Whoever acts cannot tell it from simulators: success ends an episode, the horizon cuts it, an ended row is not imagined
on. Rows that have ended leave the batch that the world model is given. A row's noise depends on its seed alone, so what
it shows does not depend on which rows are beside it (but for the rounding of matrix products of another size).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from wovr.envs.base import CLONE_WITHOUT_PROPRIO, ChunkVectorEnv, image_observation_space
from wovr.envs.imagined.parts import Judge, check_parts, check_trust, check_value, load_parts, load_value
from wovr.envs.imagined.starts import StartPool, prepare_starts
from wovr.errors import UserError, check_least
from wovr.functional.success import consecutive_success
from wovr.models.trust.chunk import SeenChunk
from wovr.models.trust.loading import load_trust
from wovr.models.trust.model import Trust
from wovr.models.world_model.model import WorldModel
from wovr.models.world_model.rollout import Imagination, ImaginationState
from wovr.types import ChunkStep, Observation, StartState


@dataclass
class ImaginedSnapshot:
    """All N rows at a moment; the tensors are never written to.

    Attributes:
        images: (N, H, W, 3) uint8, what each row shows.
        proprio: (N, P) float32, where the world model predicts it, else P is 0.
        instructions: N sentences.
        tasks: N times (suite, index).
        left: (N,) int64, actions left to the horizon, or to where the rollout is cut before it.
        early: (N,) bool, the rollout is cut before its horizon.
        streak: (N,) int64, successful frames in a row so far.
        begun: (N, K, A) float32, the actions of a chunk that is not complete; neutral ones where none was taken yet.
        taken: (N,) int64, how many of those were taken.
        rows: (R,) int64, rising: the rows that run.
        rollouts: Their R rollouts as they were when the chunk began; None where no row runs.
        before: (R, window - 1, H, W, 3) uint8, the frames before the chunk.
    """

    images: np.ndarray
    proprio: np.ndarray
    instructions: list[str]
    tasks: list[tuple[str, int]]
    left: np.ndarray
    early: np.ndarray
    streak: np.ndarray
    begun: np.ndarray
    taken: np.ndarray
    rows: np.ndarray
    rollouts: ImaginationState | None
    before: Tensor

    def copy(self) -> ImaginedSnapshot:
        """The same, in arrays of its own."""
        own: dict[str, Any] = {k: v.copy() for k, v in vars(self).items() if isinstance(v, np.ndarray | list)}
        return replace(self, **own)

    def reseeded(self, seeds: Sequence[int]) -> ImaginedSnapshot:
        """The same with other noise from here on.

        Args:
            seeds: R, one a row that runs.
        """
        if self.rollouts is None:
            return self.copy()
        rollouts = replace(self.rollouts, seeds=torch.tensor([seed % 2**63 for seed in seeds], dtype=torch.int64))
        return replace(self.copy(), rollouts=rollouts)


@dataclass(frozen=True)
class ImaginedChunk:
    """R rows after a whole chunk.

    Attributes:
        clip: (R, window - 1 + K, H, W, 3) uint8, the frames before it and its own.
        probability: (R, K) float32.
        spread: (R, K) float32, its standard deviation over several noises; None where that is not asked for.
        proprio: (R, K, P) float32, after each action; P is 0 where the world model predicts none.
        trust: (R,) float32; None where nobody says.
        distrust: (R, S) float32, the signals behind it; None likewise.
        after: The rollouts.
    """

    clip: Tensor
    probability: np.ndarray
    spread: np.ndarray | None
    proprio: np.ndarray
    trust: np.ndarray | None
    distrust: np.ndarray | None
    after: ImaginationState


class ImaginedVectorEnv(ChunkVectorEnv):
    """N imagined environments.

    A chunk is K actions, as many as the world model imagines at once. Fewer are executed too, down to the single ones
    of `step`, as long as they end where a chunk ends: the world model is then given the actions of the chunk so far,
    with neutral ones for the rest, and starts anew from the chunk's beginning with each call. So after K single steps
    everything is as after one chunk, and the last frame is the same; earlier ones differ where the world model lets
    frames of a chunk look ahead, and are judged as they were shown.

    An episode ends by `consecutive` successful frames in a row (`terminated`) or by its horizon (`truncated`), which is
    that of its start state or else of its task. `ChunkStep.info` holds `success_probability` (N, K) float32, 0 where a
    step is not valid, and with `uncertainty_seeds` the `uncertainty`, likewise.

    With a value function `info` holds the `value` (N, K) of the last frame of a chunk, 0 elsewhere: the probability
    that the rollout is going to succeed, 0 where it has ended by success or by its horizon. Rollouts are cut
    (`truncated`) after `cut_after` actions, before imagination has gone astray.

    With a trust `info` holds the `trust` (N, K) of the chunk that a frame is part of: how far it may be believed, in
    [0, 1]; and the signals behind it, `distrust` (N, K, S); 0 where a step is not valid. A chunk below
    `trust_threshold` is taken back: not one of its steps is `valid`, no success in it counts, and the rollout has ended
    with the frame before it.

    Args:
        world_model: Imagines; moved to the device.
        classifier: Judges; moved along if it is a module.
        starts: Instructions and horizons of tasks, and the start states of rows that are given none.
        num_envs: Rows, N.
        sigmas: Noise levels of the sampler, falling from 1; None for the world model's own.
        precision: `fp32`, or `bf16` for matrix products of the world model in bfloat16.
        device: `auto` (the first CUDA device if there is one, else the CPU) or a torch device.
        uncertainty_seeds: Imagine every chunk with so many other noises too, and report the standard deviation of the
            success probability over all of them.
        batch_size: Rows given to the world model at a time, where memory is short; 0 for all that run.
        compile: Let torch.compile make faster code of the world model; takes a minute or so with the first chunks.
        stop_at_success: Whether success ends an episode (an ablation of GRPO imagines on, to the horizon).
        value: The value function; moved along if it is a module.
        cut_after: Actions after which every rollout is cut; needs `value`. None for no cut.
        trust: Says how far each chunk may be believed; moved along.
        trust_threshold: Least trust of a chunk that is not taken back, in [0, 1]; needs `trust`. None for any.

    Attributes:
        imagined_frames: Frames imagined since it was made, those for `uncertainty` included.

    Raises:
        UserError: Parts that do not fit each other, or no such device.
    """

    def __init__(
        self,
        world_model: WorldModel,
        classifier: Judge,
        starts: StartPool,
        num_envs: int,
        *,
        sigmas: Sequence[float] | None = None,
        precision: str = "fp32",
        device: str = "auto",
        uncertainty_seeds: int = 0,
        batch_size: int = 0,
        compile: bool = False,
        stop_at_success: bool = True,
        value: Judge | None = None,
        cut_after: int | None = None,
        trust: Trust | None = None,
        trust_threshold: float | None = None,
    ) -> None:
        checks = (("num_envs", num_envs, 1), ("uncertainty_seeds", uncertainty_seeds, 0), ("batch_size", batch_size, 0))
        for label, given, least in checks:
            check_least(label, given, least)
        check_parts(world_model, classifier, starts)
        check_value(value, cut_after, classifier)
        check_trust(trust, trust_threshold, world_model)
        place = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            world_model.to(place if device == "auto" else device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device '{device}' cannot be used: {error}", "use cpu, cuda or auto") from error
        judges: tuple[object, ...] = (classifier, value, trust)
        for judge in judges:
            if isinstance(judge, nn.Module):
                judge.to(world_model.neutral.device).eval()
        self.value, self.cut_after = value, cut_after
        self.trust, self.trust_threshold = trust, trust_threshold
        self.imagination = Imagination(world_model, sigmas, precision, compile)
        self.classifier, self.starts, self.num_envs = classifier, starts, num_envs
        self.uncertainty_seeds = uncertainty_seeds
        self.batch_size, self.stop_at_success = batch_size, stop_at_success
        self.fps = starts.fps
        self.action_repeat = starts.action_repeat
        self.image_size = starts.image_size
        self.chunk = world_model.chunk
        self.imagined_frames = 0
        self._neutral = world_model.neutral.cpu().numpy()
        self.single_observation_space = image_observation_space(self.image_size)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (world_model.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        pictures = (*self.image_size, 3)
        self._state = ImaginedSnapshot(
            images=np.zeros((num_envs, *pictures), np.uint8),
            proprio=np.zeros((num_envs, world_model.conditioning.predicts.get("proprio", 0)), np.float32),
            instructions=[""] * num_envs,
            tasks=[("", 0)] * num_envs,
            left=np.zeros(num_envs, np.int64),
            early=np.zeros(num_envs, bool),
            streak=np.zeros(num_envs, np.int64),
            begun=np.tile(self._neutral, (num_envs, self.chunk, 1)),
            taken=np.zeros(num_envs, np.int64),
            rows=np.zeros(0, np.int64),
            rollouts=None,
            before=torch.zeros((0, classifier.window - 1, *pictures), dtype=torch.uint8),
        )

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start rollouts.

        Args:
            seed: Seed of row 0, row i taking `seed + i`; or one seed (or None) a row. It seeds the row's noise: rows of
                one seed get the same. Without one it is drawn.
            options: `start_states`, a StartState or None a row: None makes the row idle. Without it every row starts
                where its seed says, from the pool. `reset_mask`, (N,) bool: rows that are False go on as they are.

        Returns:
            The observation of all N rows, and `{"success": (N,) bool}`.

        Raises:
            UserError: A start state without a reference frame, of another size or of an unknown task.
        """
        options = options or {}
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs)), bool)
        starts: Sequence[StartState | None] | None = options.get("start_states")
        seeds = [int(seed) + row for row in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        for what, given in (("reset_mask", mask), ("start_states", starts), ("seed", seeds)):
            if given is not None and len(given) != self.num_envs:
                raise UserError(f"{what} has {len(given)} entries for {self.num_envs} environments")
        found: dict[int, tuple[StartState, int]] = {}
        for row in np.flatnonzero(mask).tolist():
            own = None if seeds is None else seeds[row]
            own = int(self.np_random.integers(2**63)) if own is None else int(own)
            start = starts[row] if starts is not None else self.starts.draw(1, np.random.default_rng(own % 2**64))[0]
            if start is not None:
                found[row] = start, own
        self._start(mask, found)
        return self.observation_dict(), {"success": np.zeros(self.num_envs, bool)}

    def observe(self) -> Observation:
        """The current observation of all N rows; an idle row shows a black picture and an empty instruction."""
        proprio = self._state.proprio.copy() if self.proprio_dim else None
        return Observation(self._state.images.copy(), list(self._state.instructions), proprio)

    def show_proprio(self, dim: int) -> None:
        """See ChunkVectorEnv.show_proprio: the world model has to predict it."""
        if (predicted := self._state.proprio.shape[1]) != dim:
            what = f"{predicted} numbers of proprioception" if predicted else "no proprioception"
            raise UserError(
                f"the world model predicts {what}, the policy takes {dim} numbers",
                f"give one that does, fitted on these episodes by conf/wm.yaml, or {CLONE_WITHOUT_PROPRIO}",
            )
        if dim != self.proprio_dim:
            self._add_proprio(dim)

    def snapshot(self) -> ImaginedSnapshot:
        """All rows as they are, to come back to with `restore`."""
        return self._state.copy()

    def restore(self, snapshot: ImaginedSnapshot) -> None:
        """Go back: what follows is the same as it was the first time.

        Raises:
            UserError: A snapshot of an environment with another number of rows.
        """
        if len(snapshot.taken) != self.num_envs:
            raise UserError(f"a snapshot of {len(snapshot.taken)} environments for {self.num_envs}")
        self._state = snapshot.copy()

    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """Execute K actions, or fewer, in every row that has not ended; see the class and ChunkVectorEnv.step_chunk.

        Raises:
            UserError: Wrong shape, an action that is not finite, actions beyond the end of a chunk, or a success
                probability that is not finite.
        """
        actions, state = self.check_actions(actions), self._state
        rows, count = state.rows, actions.shape[1]
        taken = state.taken[rows, None]
        if not 1 <= count <= self.chunk - taken.max(initial=0):
            begun = f", of which {taken.max()} were taken" if taken.any() else ""
            raise UserError(
                f"{count} actions at once; the world model's chunk is {self.chunk}{begun}",
                "use a policy with a chunk of the same length",
            )
        step = self._nothing(actions)
        if state.rollouts is None:
            return step
        each, steps = np.arange(len(rows))[:, None], np.arange(count)
        begun = state.begun[rows]
        begun[each, taken + steps] = actions[rows]
        chunk = self._imagine(state.rollouts, begun)
        probability = chunk.probability[each, taken + steps]
        success, streak = consecutive_success(
            probability, self.classifier.threshold, self.classifier.consecutive, state.streak[rows]
        )
        cut = steps + 1 >= state.left[rows, None]
        over = np.logical_or.accumulate(success & self.stop_at_success | cut, axis=1)
        valid = np.concatenate([np.ones((len(rows), 1), bool), ~over[:, :-1]], axis=1)
        last = valid.sum(axis=1, keepdims=True) - 1
        images = chunk.clip[:, -self.chunk :].cpu().numpy()[each, taken + np.minimum(steps, last)]
        if chunk.trust is not None and self.trust_threshold is not None:
            doubted = chunk.trust < self.trust_threshold
            over[doubted], valid[doubted], images[doubted] = True, False, state.images[rows[doubted], None]
        step.images[rows], step.actions[rows], step.valid[rows] = images, actions[rows], valid
        step.success[rows] = success & valid
        step.terminated[rows] = success & valid & self.stop_at_success
        step.truncated[rows] = cut & valid
        step.info["success_probability"][rows] = probability * valid
        if chunk.spread is not None:
            step.info["uncertainty"][rows] = chunk.spread[each, taken + steps] * valid
        if chunk.trust is not None and chunk.distrust is not None:
            step.info["trust"][rows] = chunk.trust[:, None] * valid
            step.info["distrust"][rows] = chunk.distrust[:, None] * valid[..., None]
        if self.value is not None:
            self._foresee(self.value, step, rows, chunk.clip, (taken + last)[:, 0], over[:, -1])
        state.images[rows] = images[:, -1]
        state.proprio[rows] = chunk.proprio[each, taken + last][:, 0]
        state.left[rows] -= count
        state.streak[rows] = streak
        state.begun[rows] = begun
        state.taken[rows] += count
        self._advance(state.rollouts, chunk, ~over[:, -1])
        return step

    def _nothing(self, actions: np.ndarray) -> ChunkStep:
        """What a chunk returns when no row runs."""
        leading = actions.shape[:2]
        names = ["success_probability"] + ["uncertainty"] * (self.uncertainty_seeds > 0)
        names += [] if self.value is None else ["value"]
        info = {name: np.zeros(leading, np.float32) for name in names}
        if self.trust is not None:
            info |= {"trust": np.zeros(leading, np.float32)}
            info |= {"distrust": np.zeros((*leading, len(self.trust.names)), np.float32)}
        return ChunkStep(
            images=np.repeat(self._state.images[:, None], leading[1], axis=1),
            success=np.zeros(leading, bool),
            terminated=np.zeros(leading, bool),
            truncated=np.zeros(leading, bool),
            valid=np.zeros(leading, bool),
            actions=np.zeros_like(actions),
            info=info,
        )

    def _imagine(self, rollouts: ImaginationState, actions: np.ndarray) -> ImaginedChunk:
        """Imagine and judge a whole chunk of R rows; actions are (R, K, A)."""
        state = self._state
        tasks = [state.tasks[row] for row in state.rows]
        frames, after, proprio = self._roll(rollouts, actions)
        clip = torch.cat([state.before, frames], dim=1)  # (R, window - 1 + K, H, W, 3)
        found = [self._judge(self.classifier, clip, tasks)]
        for number in range(1, self.uncertainty_seeds + 1):
            others = [np.random.SeedSequence((seed % 2**64, number)) for seed in rollouts.seeds.tolist()]
            seeds = torch.tensor([int(other.generate_state(1, np.uint64)[0] >> np.uint64(1)) for other in others])
            frames_then, _, _ = self._roll(replace(rollouts, seeds=seeds), actions)
            found.append(self._judge(self.classifier, torch.cat([state.before, frames_then], dim=1), tasks))
        spread = np.std(found, axis=0, dtype=np.float32) if self.uncertainty_seeds else None
        trust, distrust = self._believe(rollouts, actions, frames, found[0])
        return ImaginedChunk(clip, found[0], spread, proprio, trust, distrust, after)

    @torch.no_grad()
    def _believe(
        self, rollouts: ImaginationState, actions: np.ndarray, frames: Tensor, probability: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Trust of a chunk of R rollouts, and the signals behind it: (R,) and (R, S) float32; None without a trust.

        Args:
            rollouts: As they were when the chunk began.
            actions: (R, K, A).
            frames: (R, K, H, W, 3) uint8.
            probability: (R, K), of success.
        """
        if self.trust is None:
            return None, None
        context = rollouts.context
        told, judged = (torch.from_numpy(values).to(frames.device) for values in (actions, probability))
        signals = self.trust.read(SeenChunk(context.reference, context.memory[:, -1], frames, told, judged))
        trust = self.trust.trust(signals).cpu().numpy()
        if not np.isfinite(trust).all():
            raise UserError("the trust of a chunk is not finite", "check the weights of the trust; train it again")
        return trust, signals.cpu().numpy()

    def _foresee(
        self, value: Judge, step: ChunkStep, rows: np.ndarray, clip: Tensor, last: np.ndarray, over: np.ndarray
    ) -> None:
        """Fill in the value of rows that go on or were cut early.

        Args:
            value: The value function.
            step: What is filled in.
            rows: (R,) the rows that the others are of.
            clip: (R, classifier.window - 1 + K, H, W, 3) uint8.
            last: (R,) place of each one's last frame in its chunk.
            over: (R,) bool, it has ended.
        """
        cut = (step.truncated[rows] & ~step.success[rows]).any(axis=1) & self._state.early[rows]
        seen = np.flatnonzero(~over | cut)
        if not len(seen):
            return
        # A window of the value function ends at that frame; the clip has `classifier.window - 1` frames before.
        first = last[seen] + self.classifier.window - value.window
        window = clip[torch.from_numpy(seen)[:, None], torch.from_numpy(first[:, None] + np.arange(value.window))]
        foreseen = self._judge(value, window, [self._state.tasks[row] for row in rows[seen]])[:, 0]
        step.info["value"][rows[seen], step.valid[rows[seen]].sum(axis=1) - 1] = foreseen

    def _roll(self, rollouts: ImaginationState, actions: np.ndarray) -> tuple[Tensor, ImaginationState, np.ndarray]:
        """Imagine a chunk, `batch_size` rows at a time.

        Returns:
            (R, K, H, W, 3) uint8; the rollouts after it; (R, K, P) float32 proprioception.
        """
        size = self.batch_size or len(rollouts)
        frames, states, proprio = [], [], list[np.ndarray]()
        nothing = (self.chunk, self._state.proprio.shape[1])
        for part in torch.arange(len(rollouts)).split(size):
            self.imagination.restore(rollouts if len(part) == len(rollouts) else rollouts.select(part))
            frames.append(self.imagination.step(actions[part.numpy()]))
            states.append(self.imagination.snapshot())
            said = self.imagination.predicted.get("proprio")
            proprio.append(np.zeros((len(part), *nothing)) if said is None else said.float().cpu().numpy())
        self.imagined_frames += len(rollouts) * self.chunk
        known = np.concatenate(proprio).astype(np.float32)
        if len(states) == 1:
            return frames[0], states[0], known
        return torch.cat(frames), ImaginationState.join(states), known

    @torch.no_grad()
    def _judge(self, judge: Judge, clip: Tensor, tasks: Sequence[tuple[str, int]]) -> np.ndarray:
        """(R, window - 1 + K, H, W, 3) uint8 -> (R, K) float32."""
        probability = judge.probability(clip, tasks).float().cpu().numpy()
        if not np.isfinite(probability).all():
            raise UserError(
                "the success classifier's or value function's probabilities are not finite",
                "check its weights; train it again",
            )
        return probability

    def _advance(self, rollouts: ImaginationState, chunk: ImaginedChunk, stay: np.ndarray) -> None:
        """Go on with the rows that `stay` (R,) bool says, those whose chunk is whole from its end."""
        state = self._state
        whole = state.taken[state.rows] == self.chunk
        closed = state.rows[whole | ~stay]
        state.taken[closed], state.begun[closed] = 0, self._neutral
        old, new = np.flatnonzero(stay & ~whole), np.flatnonzero(stay & whole)
        at_end = torch.from_numpy(whole).to(chunk.clip.device)[:, None, None, None, None]
        before = torch.where(at_end, chunk.clip[:, self.chunk :], state.before)
        if len(new) == len(stay):
            state.rollouts, state.before = chunk.after, before
            return
        parts = [source.select(which) for source, which in ((rollouts, old), (chunk.after, new)) if len(which)]
        if len(parts) == 2:
            parts = [ImaginationState.join(parts).select(np.argsort(np.concatenate([old, new])))]
        state.rollouts = parts[0] if parts else None
        state.before = before[torch.from_numpy(stay).to(before.device)]
        state.rows = state.rows[stay]

    def _start(self, mask: np.ndarray, starts: dict[int, tuple[StartState, int]]) -> None:
        """Idle the rows of `mask` (N,) bool, then start some of them: row -> (start state, seed)."""
        state, model, window = self._state.copy(), self.imagination.model, self.classifier.window
        stay = np.flatnonzero(~mask[state.rows])
        parts = [] if state.rollouts is None or not len(stay) else [state.rollouts.select(stay)]
        rows = state.rows[stay]
        before = state.before[torch.from_numpy(stay).to(state.before.device)]
        for array in (state.images, state.proprio, state.taken, state.streak):
            array[mask] = 0
        state.begun[mask] = self._neutral
        for row in np.flatnonzero(mask).tolist():
            state.instructions[row] = ""
        if starts:
            fresh = list(starts)
            begin = prepare_starts(
                [start for start, _ in starts.values()],
                self.starts,
                self.classifier.tasks,
                max(model.memory, window),
                self._neutral,
            )
            self.imagination.start(
                begin.reference,
                begin.memory,
                begin.memory_actions,
                age=begin.age,
                signals=begin.signals,
                seeds=[seed % 2**63 for _, seed in starts.values()],
            )
            parts.append(self.imagination.snapshot())
            most = begin.horizon.max() if self.cut_after is None else self.cut_after
            state.images[fresh], state.left[fresh] = begin.memory[:, -1], np.minimum(begin.horizon, most)
            state.early[fresh] = begin.horizon > most
            if state.proprio.shape[1]:
                state.proprio[fresh] = begin.signals["proprio"]
            for row, instruction, task in zip(fresh, begin.instructions, begin.tasks, strict=True):
                state.instructions[row], state.tasks[row] = instruction, task
            seen = torch.from_numpy(begin.memory[:, begin.memory.shape[1] - window + 1 :]).to(self.imagination.device)
            before = torch.cat([before.to(seen.device), seen])
            rows = np.concatenate([rows, np.array(fresh, np.int64)])
        order = np.argsort(rows)
        state.rows = rows[order]
        state.before = before[torch.from_numpy(order).to(before.device)]
        state.rollouts = ImaginationState.join(parts).select(order) if parts else None
        self._state = state


def make_imagined_env(
    world_model: Path,
    reward: Path,
    starts: StartPool,
    num_envs: int,
    *,
    value: Path | None = None,
    trust: Path | None = None,
    **options: Any,
) -> ImaginedVectorEnv:
    """The environment of two checkpoints, or up to four.

    Args:
        world_model: Checkpoint of a world model.
        reward: Checkpoint of a success classifier.
        starts: Where rollouts begin.
        num_envs: Rows, N.
        value: Checkpoint of a value function.
        trust: Checkpoint of a trust.
        options: Keyword arguments of ImaginedVectorEnv.

    Raises:
        UserError: A checkpoint that cannot be loaded, or parts that do not fit each other.
    """
    foresees = None if value is None else load_value(value, starts)
    believes = None if trust is None else load_trust(trust, starts.image_size)
    imagines, judges = load_parts(world_model, reward, starts)
    return ImaginedVectorEnv(imagines, judges, starts, num_envs, value=foresees, trust=believes, **options)
