"""`wovr play`: drive a learned world model in a browser, the simulator beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wovr.commands.arguments import call, words
from wovr.commands.places import BASE, KEYFRAMES, POLICY, REWARD, RL, VALUE, WORLD_MODEL
from wovr.errors import UserError, check_least
from wovr.serve.access import Access
from wovr.serve.listening import open_port

if TYPE_CHECKING:
    from wovr.serve.beside import Simulator
    from wovr.serve.engine import Engine
    from wovr.serve.starts import StoredStarts


def play(
    world_model: Path = Path(WORLD_MODEL),
    reward: Path = Path(REWARD),
    data: str = BASE,
    policy: str = f"{POLICY},{RL}",
    value: str = VALUE,
    keyframes: str = KEYFRAMES,
    suite: str = "",
    env: str = "tabletop",
    env_args: dict[str, Any] | None = None,
    host: str = "127.0.0.1",
    port: int = 8321,
    token: str = "",
    sessions: int = 16,
    out: Path = Path("runs/play"),
    seed: int | None = None,
    uncertainty_seeds: int = 0,
    precision: str = "fp32",
    compile: bool = False,
    device: str = "auto",
) -> None:
    """Drive a learned world model in a browser: by keys, pointer or gamepad, or let a policy drive and take over.

    Prints the address of a page, which works offline. Beside what is imagined it shows the simulator under the same
    actions, and where the two part. Ctrl-C ends it.

    Args:
        world_model: Checkpoint of the world model.
        reward: Checkpoint of the success classifier.
        data: Comma list of folders of episodes, whose frames games begin from.
        policy: Comma list of checkpoints of policies that can drive; empty for none.
        value: Checkpoint of a value function; empty for none.
        keyframes: Folder of keyframes to begin from; empty for none.
        suite: Comma list of suites to offer; empty for all of the data.
        env: Simulator beside what is imagined (tabletop, metaworld, libero, or an import path like my_robot:FrankaEnv);
            empty for none.
        env_args: Arguments of the simulator's class.
        host: Interface to bind to; one that others reach needs --token.
        port: Port; 0 for any that is free.
        token: What a page has to know, 16 characters or more; empty for nothing, on this machine alone.
        sessions: Tabs at a time.
        out: Folder for what pages save.
        seed: Seed of the noise of games whose page names none; null to draw one for each.
        uncertainty_seeds: Imagine every chunk with so many other noises too, and show how far they disagree.
        precision: fp32, or bf16 for matrix products of the world model in bfloat16.
        compile: Let torch.compile make faster code of the world model; the first chunks take a minute or so.
        device: Where networks compute: auto, cpu, cuda.
    """
    check_least("--sessions", sessions)
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}", "give 0 to 65535")
    access = Access(host, token)
    listening = open_port(host, port)  # first: what follows takes seconds to load
    try:
        from wovr.models.checkpoint import network_fingerprint
        from wovr.models.world_model.model import WorldModel
        from wovr.serve.app import make_app, serve
        from wovr.serve.keeping import Keeper

        options = {"uncertainty_seeds": uncertainty_seeds, "precision": precision, "compile": compile, "device": device}
        engine = _engine(world_model, reward, data, policy, value, keyframes, suite, env, env_args, options)
        app = make_app(engine, Keeper(out, network_fingerprint(world_model, WorldModel)), access, sessions, seed)
        address = listening.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        secret = f"#token={quote(token)}" if token else ""
        said = f"http://{shown}:{address[1]}/{secret}"
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(app, listening, lambda: print(f"play at {said}", flush=True)))
    finally:
        listening.close()


def _engine(
    world_model: Path,
    reward: Path,
    data: str,
    policy: str,
    value: str,
    keyframes: str,
    suite: str,
    env: str,
    env_args: dict[str, Any] | None,
    options: dict[str, Any],
) -> Engine:
    """What all tabs share, from checkpoints that fit each other."""
    from wovr.envs.actors.policy import check_fit
    from wovr.envs.base import CLONE_WITHOUT_PROPRIO
    from wovr.envs.imagined.env import make_imagined_env
    from wovr.envs.imagined.parts import check_chunk, check_value, load_value
    from wovr.models.policies.base import Policy
    from wovr.models.policies.loading import load_policy
    from wovr.serve.controls import describe_controls
    from wovr.serve.engine import Engine
    from wovr.serve.starts import StoredStarts

    starts = StoredStarts([Path(word) for word in words(data)], keyframes or None, words(suite))
    imagined = make_imagined_env(world_model, reward, starts, 1, stop_at_success=False, **options)
    foresees = load_value(Path(value), starts) if value else None
    check_value(foresees, None, imagined.classifier)
    place = imagined.imagination.device
    if foresees is not None:
        foresees.to(place)
    policies: dict[str, Policy] = {}
    for checkpoint in words(policy):
        loaded = load_policy(Path(checkpoint))
        if loaded.proprio_dim:
            raise UserError(
                f"{checkpoint}: takes proprioception, and a game shows pictures only", CLONE_WITHOUT_PROPRIO
            )
        check_fit(loaded, imagined, checkpoint)
        check_chunk(loaded, imagined.chunk, checkpoint)
        policies[_name(checkpoint, policies)] = loaded.to(place)
    simulator, note = _simulator(env, env_args, starts)
    axes = () if simulator is None else simulator.action_axes
    neutral = imagined.imagination.model.neutral.cpu().numpy()
    controls = describe_controls(axes, starts.store.action_statistics, neutral, env)
    return Engine(imagined, starts, controls, foresees, policies, simulator, note)


def _name(checkpoint: str, taken: dict[str, Any]) -> str:
    """A short name of a policy: its file's, or that of the run which made it."""
    path = Path(checkpoint)
    run = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem
    name = run or "policy"
    number = 2
    while name in (*taken, "hand", "expert"):
        name, number = f"{run}-{number}", number + 1
    return name


def _simulator(env: str, env_args: dict[str, Any] | None, starts: StoredStarts) -> tuple[Simulator | None, str]:
    """The simulator beside, or why there is none: the episodes come from elsewhere, say."""
    if not env:
        return None, "no simulator was asked for"
    from wovr.envs.registry import check_name
    from wovr.serve.beside import Simulator

    check_name(env)
    if differences := starts.origin.differences(env, env_args or {}):
        return None, f"no simulator beside: {differences[0]}"
    simulator = Simulator(env, env_args)
    if simulator.env.action_dim == starts.action_dim and simulator.env.image_size == starts.image_size:
        return simulator, ""
    size = " x ".join(map(str, simulator.env.image_size))
    told = f"{env} has pictures of {size} and actions of {simulator.env.action_dim} dimensions, the episodes others"
    simulator.close()
    return None, f"no simulator beside: {told}"


def main(args: Sequence[str]) -> None:
    """Run `wovr play ARGS`."""
    call(play, args, "play", measures=True, shows=("policy", "value", "keyframes"))
