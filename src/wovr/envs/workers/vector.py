"""N simulators shared out over worker processes, behind the one environment protocol.

A whole chunk is executed per message, so the processes talk once in K steps instead of at every step; pictures, actions
and flags lie in shared memory. What comes back does not depend on the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from gymnasium.vector.utils import batch_space

from wovr.envs.base import CLONE_WITHOUT_PROPRIO, ChunkVectorEnv
from wovr.envs.workers.shared_blocks import BlockShape, SharedBlocks, make_shared_file
from wovr.envs.workers.spawning import clean_children
from wovr.envs.workers.worker import (
    Recorded,
    StartOrder,
    WorkerFailure,
    WorkerReport,
    WorkerSettings,
    serve,
)
from wovr.errors import UserError, check_least
from wovr.types import CHUNK, ChunkStep, Observation, StartState, TaskInfo

PATIENCE = 900.0
"""Seconds a worker may take over one request (the slowest simulators need some for each of theirs to be made)."""


class WorkerVectorEnv(ChunkVectorEnv):
    """N simulators in `num_workers` spawned processes that never import torch.

    Rows are dealt out to the workers in turn. An episode ends by success or by its horizon; an ended row is not
    simulated on: its steps have `valid`, `success`, `terminated` and `truncated` False, and repeat its last frame.

    Args:
        name: Environment, as in `wovr.envs.registry`.
        num_envs: Simulators side by side, N.
        num_workers: Processes; more than N are not started.
        arguments: Arguments of the simulator's class.
        record_states: Whether `ChunkStep.sim_state`, `.proprio` and `.camera` are filled.
        steps_after_success: Steps an episode goes on after its first successful frame before it terminates, so that a
            store gets more than one frame a success.
        every_frame: False where only the last picture of a chunk is looked at, as a policy does: in a simulator that
            can, the others are not rendered, and repeat the one before. So does the last of an episode that ends
            within a chunk.
        max_chunk: Most actions executed per message; longer chunks take several.

    Attributes:
        suites: Every suite of the environment with its tasks.
        fps: The environment's control rate, Hz.
        image_size: (H, W) of its pictures.
        action_axes: What each dimension of an action does; empty where the environment does not say.

    Raises:
        UserError: Unknown environment, arguments it does not take, or a simulator that cannot be made.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        num_workers: int,
        arguments: Mapping[str, Any] | None = None,
        record_states: bool = False,
        *,
        steps_after_success: int = 0,
        every_frame: bool = True,
        max_chunk: int = CHUNK,
    ) -> None:
        self.closed = True  # until there is something to close
        for label, value, least in (
            ("num_envs", num_envs, 1),
            ("num_workers", num_workers, 1),
            ("steps_after_success", steps_after_success, 0),
        ):
            check_least(label, value, least)
        self.name = name
        self.num_envs = num_envs
        self.num_workers = min(num_workers, num_envs)
        self.record_states = record_states
        self.max_chunk = max_chunk
        self._active = np.zeros(num_envs, bool)
        self._instructions = [""] * num_envs
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self.closed = False
        try:
            self._start_workers(dict(arguments or {}), steps_after_success, every_frame)
        except BaseException:
            self.close()
            raise

    def _start_workers(self, arguments: dict[str, Any], steps_after_success: int, every_frame: bool) -> None:
        context = multiprocessing.get_context("spawn")
        with clean_children():
            for index in range(self.num_workers):
                rows = tuple(range(index, self.num_envs, self.num_workers))
                settings = WorkerSettings(
                    self.name, arguments, rows, self.record_states, steps_after_success, every_frame
                )
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=serve, args=(theirs, settings), name=f"wovr-simulator-{index}", daemon=True
                )
                process.start()
                theirs.close()  # the child's end lives in the child only, so its death closes the pipe
                self._connections.append(ours)
                self._processes.append(process)
        everybody = range(self.num_workers)
        report: WorkerReport = self._request(dict.fromkeys(everybody, ("make", ())))[0]
        self.fps = report.fps
        self.action_range = report.action_range
        self.action_axes = report.action_axes
        self.action_repeat = report.action_repeat
        self.suites: dict[str, tuple[TaskInfo, ...]] = report.suites
        self.single_observation_space = report.observation_space
        self.single_action_space = report.action_space
        self.observation_space = batch_space(report.observation_space, self.num_envs)
        self.action_space = batch_space(report.action_space, self.num_envs)
        height, width, _ = report.observation_space["image"].shape or (0, 0, 0)
        self.image_size = (height, width)
        shape = BlockShape(self.num_envs, self.max_chunk, self.image_size, self.action_dim)
        path = make_shared_file(shape)
        try:
            self._blocks = SharedBlocks(path, shape)
            self._request(dict.fromkeys(everybody, ("share", (path, shape))))
        finally:
            path.unlink()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes if process.pid is not None]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start episodes.

        Args:
            seed: Seed of row 0, row i taking `seed + i`; or one seed (or None) a row. It seeds the simulator's own
                generator.
            options: `start_states`, a StartState or None a row: None makes the row idle. Without it every row starts
                where its simulator's generator says. `reset_mask`, (N,) bool: rows that are False go on as they are.

        Returns:
            The observation of all N rows, and `{"success": (N,) bool}`.

        Raises:
            UserError: A start state the simulator does not have.
        """
        options = options or {}
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs)), bool)
        starts: Sequence[StartState | None] | None = options.get("start_states")
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        for what, given in (("reset_mask", mask), ("start_states", starts), ("seed", seeds)):
            if given is not None and len(given) != self.num_envs:
                raise UserError(f"{what} has {len(given)} entries for {self.num_envs} environments")
        orders: dict[int, StartOrder | None] = {}
        for row in np.flatnonzero(mask).tolist():
            start = None if starts is None else starts[row]
            idle = starts is not None and start is None
            orders[row] = None if idle else StartOrder(start, None if seeds is None else seeds[row])
        self._active[mask] = False
        requests = {
            worker: ("start", ({row: orders[row] for row in rows},)) for worker, rows in self._shares(orders).items()
        }
        for answer in self._request(requests).values():
            for row, instruction in answer.items():
                self._instructions[row] = instruction
                self._active[row] = orders[row] is not None
        return self.observation_dict(), {"success": np.zeros(self.num_envs, bool)}

    def observe(self) -> Observation:
        """The current observation of all N rows; an idle row shows a black picture and an empty instruction.

        Proprioception, where it is asked for, is 0 of rows that have ended.

        Raises:
            UserError: Proprioception is asked for, and a simulator gives none or another number of it.
        """
        self._check_open()
        proprio = self._proprio() if self.proprio_dim else None
        return Observation(self._blocks.current.copy(), list(self._instructions), proprio)

    def show_proprio(self, dim: int) -> None:
        """See ChunkVectorEnv.show_proprio; whether simulators have it is known once they are started."""
        if dim != self.proprio_dim:
            self._add_proprio(dim)

    def _proprio(self) -> np.ndarray:
        """(N, P) float32."""
        found = np.zeros((self.num_envs, self.proprio_dim), np.float32)
        running = np.flatnonzero(self._active).tolist()
        for row, values in zip(running, self.proprios(running), strict=True):
            if values is None or len(values) != self.proprio_dim:
                there = "none" if values is None else f"{len(values)} numbers of it"
                raise UserError(
                    f"the policy takes {self.proprio_dim} numbers of proprioception, environment '{self.name}' gives "
                    f"{there}",
                    CLONE_WITHOUT_PROPRIO,
                )
            found[row] = values
        return found

    def sim_states(self, rows: Sequence[int] | None = None) -> list[np.ndarray | None]:
        """Current states of the simulators, (S,) float64 each, of `rows` or all; None where there is none to be had."""
        return self._ask("states", rows)

    def proprios(self, rows: Sequence[int] | None = None) -> list[np.ndarray | None]:
        """What the robots of `rows` or all know of themselves now, (P,) float32 each; None where one says nothing.

        Raises:
            UserError: It is not a finite vector, or not as long as before.
        """
        return self._ask("proprios", rows)

    def cameras(self, rows: Sequence[int] | None = None) -> list[np.ndarray | None]:
        """The cameras of `rows` or all now, (3, 7) float32 each; None where one is not known.

        Raises:
            UserError: It is no camera.
        """
        return self._ask("cameras", rows)

    def step_chunk(self, actions: np.ndarray) -> ChunkStep:
        """Execute K actions in every row that has not ended; see ChunkVectorEnv.step_chunk."""
        actions = self.check_actions(actions)
        return self._execute(actions, actions.shape[1])

    def step_expert(self, num_steps: int = CHUNK) -> ChunkStep:
        """Let the scripted expert, which acts inside the worker from the simulator's state, take `num_steps` steps.

        Returns:
            As `step_chunk`; `actions` are the expert's own.

        Raises:
            UserError: A task has no scripted expert.
        """
        return self._execute(None, num_steps)

    def _execute(self, actions: np.ndarray | None, num_steps: int) -> ChunkStep:
        self._check_open()
        leading, blocks = (self.num_envs, num_steps), self._blocks
        flags: dict[str, np.ndarray] = {
            name: np.zeros(leading, bool) for name in ("success", "terminated", "truncated", "valid")
        }
        images = np.empty((*leading, *blocks.current.shape[1:]), np.uint8)
        executed = np.zeros((*leading, self.action_dim), np.float32)
        recorded: list[list[Recorded]] = [[] for _ in range(self.num_envs)]
        for first in range(0, num_steps, self.max_chunk):
            steps = slice(first, min(first + self.max_chunk, num_steps))
            here = slice(0, steps.stop - first)
            running, ended = np.flatnonzero(self._active), np.flatnonzero(~self._active)
            images[ended, steps] = blocks.current[ended, None]
            if actions is not None:
                blocks.actions[running, here] = executed[running, steps] = actions[running, steps]
            shares = self._shares(running.tolist())
            try:
                answers = self._request(
                    {worker: ("chunk", (rows, here.stop, actions is None)) for worker, rows in shares.items()}
                )
            except UserError:
                self._active[:] = False  # some rows have moved and some have not: only a reset makes sense of them
                raise
            for answer in answers.values():
                for row, piece in answer.items():
                    recorded[row].append(piece)
            executed[running, steps] = blocks.actions[running, here]
            images[running, steps] = blocks.images[running, here]
            for name, flag in flags.items():
                flag[running, steps] = getattr(blocks, name)[running, here]
            self._active &= ~(flags["terminated"][:, steps] | flags["truncated"][:, steps]).any(axis=1)
        joined = [_join(pieces, num_steps) for pieces in recorded] if self.record_states else None
        return ChunkStep(
            images=images,
            success=flags["success"],
            terminated=flags["terminated"],
            truncated=flags["truncated"],
            valid=flags["valid"],
            actions=executed,
            sim_state=None if joined is None else [states for states, _, _ in joined],
            proprio=None if joined is None else [proprio for _, proprio, _ in joined],
            camera=None if joined is None else [camera for _, _, camera in joined],
        )

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers: politely, then by force."""
        for connection in self._connections:
            with suppress(OSError):
                connection.send(("close", ()))
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        for connection in self._connections:
            connection.close()
        self._connections, self._processes = [], []

    def _shares(self, rows: Iterable[int]) -> dict[int, list[int]]:
        """Worker -> those of `rows` that it simulates."""
        shares: dict[int, list[int]] = {}
        for row in rows:
            shares.setdefault(row % self.num_workers, []).append(row)
        return shares

    def _ask(self, method: str, rows: Sequence[int] | None) -> list[np.ndarray | None]:
        """What a method of SimulationWorker says of each of `rows`, or of all."""
        rows = range(self.num_envs) if rows is None else rows
        said: dict[int, np.ndarray | None] = {}
        requests = {worker: (method, (share,)) for worker, share in self._shares(rows).items()}
        for answer in self._request(requests).values():
            said |= answer
        return [said[row] for row in rows]

    def _check_open(self) -> None:
        if self.closed:
            raise UserError(f"environment '{self.name}' is closed", "make a new one")

    def _request(self, requests: Mapping[int, tuple[str, tuple]]) -> dict[int, Any]:
        """Ask workers and wait for all their answers; the first failure is raised once everybody has answered.

        Args:
            requests: Worker -> (method of SimulationWorker, arguments).

        Raises:
            UserError: A worker failed, died or does not answer.
        """
        self._check_open()
        for worker, message in requests.items():
            try:
                self._connections[worker].send(message)
            except OSError:
                self._give_up(worker)
        answers: dict[int, Any] = {}
        while missing := sorted(requests.keys() - answers.keys()):
            # A process's sentinel fires when it dies, so neither a crash nor a kill can leave us waiting.
            watched = [(worker, self._connections[worker], self._processes[worker].sentinel) for worker in missing]
            ready = wait([*(connection for _, connection, _ in watched), *(end for _, _, end in watched)], PATIENCE)
            if not ready:
                self._give_up(missing[0], f"has not answered for {PATIENCE:.0f} s")
            for worker, connection, end in watched:
                if connection not in ready and end not in ready:
                    continue
                try:
                    if not connection.poll():
                        self._give_up(worker)
                    (answers[worker],) = connection.recv()
                except (EOFError, OSError):
                    self._give_up(worker)
        for answer in answers.values():
            if isinstance(answer, WorkerFailure):
                raise UserError(answer.problem) from RuntimeError(f"in a simulator worker:\n{answer.trace}")
        return answers

    def _give_up(self, worker: int, what: str = "") -> None:
        """Close everything after a worker was lost, and say how."""
        process = self._processes[worker]
        if not what:
            process.join(timeout=5)
            code = process.exitcode or 0
            what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        pid = process.pid
        for other in self._processes:
            other.kill()
        self.close()
        raise UserError(
            f"environment '{self.name}': simulator worker {pid} {what}",
            "run the same command again; if it happens again, try fewer --workers (memory)",
        )


def count_workers(workers: int) -> int:
    """The number of processes behind `--workers`: as given, or the processor cores this process may use for 0.

    Raises:
        UserError: It is negative.
    """
    if workers < 0:
        raise UserError(f"--workers is {workers}", "give 0 for one a processor core, or the number of processes")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return workers or cores


def _join(pieces: Sequence[Recorded], num_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, S) float64, (K, P) and (K, 3, 7) float32 of one row from those of its messages."""
    states = _join_arrays([piece.sim_state for piece in pieces], num_steps, np.dtype(np.float64))
    proprio = _join_arrays([piece.proprio for piece in pieces], num_steps, np.dtype(np.float32))
    return states, proprio, _join_arrays([piece.camera for piece in pieces], num_steps, np.dtype(np.float32))


def _join_arrays(pieces: Sequence[np.ndarray | None], num_steps: int, dtype: np.dtype) -> np.ndarray:
    """(K, ...) of one row from those of its messages; the last is repeated, (K, 0) where there is none."""
    known = [piece for piece in pieces if piece is not None]
    if not known or len(known) < len(pieces):
        return np.zeros((num_steps, 0), dtype)
    values = np.concatenate(known)
    return np.concatenate([values, np.repeat(values[-1:], num_steps - len(values), axis=0)])
