"""`wovr data inspect|verify|keyframes|imagine|convert|label DIR`: look into episodes, check, imagine, convert them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from wovr.commands.arguments import alone_in_out, call
from wovr.commands.data.convert import convert
from wovr.commands.data.label import label
from wovr.commands.places import KEYFRAMES, WORLD_MODEL
from wovr.commands.terminal import PlainConsole, episode_progress
from wovr.data.inspection import contact_sheet, describe
from wovr.data.keyframes.rules import Finding, KeyframeRules, find_keyframes
from wovr.data.keyframes.sheet import keyframe_sheet
from wovr.data.keyframes.store import KINDS, save_keyframes
from wovr.data.pictures import write_png
from wovr.data.store.dataset import read_dataset
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.verification import verify_dataset
from wovr.envs.scenes import READERS, knows_states_of, scene_positions
from wovr.errors import UserError


def inspect(folder: Path, out: Path | None = None, rows: int = 10, columns: int = 8) -> None:
    """Print what is in a folder of episodes and draw a contact sheet.

    Args:
        folder: Folder with shards and dataset.json.
        out: Where to write the contact sheet; DIR/contact_sheet.png unless given.
        rows: Episodes on the contact sheet, one of each task in turn.
        columns: Frames of each, evenly spaced.
    """
    if rows < 1 or columns < 1:
        raise UserError(f"a contact sheet of {rows} rows and {columns} columns", "give at least 1 of each")
    store = EpisodeStore(folder)
    console = PlainConsole()
    console.print(describe(store))
    path = out or folder / "contact_sheet.png"
    write_png(contact_sheet(store, rows, columns), path)
    console.print(f"contact sheet: {path}", soft_wrap=True)


def verify(folder: Path) -> None:
    """Decode every sample of every shard and check all of it against dataset.json, SHA-256 included.

    Args:
        folder: Folder with shards and dataset.json.
    """
    with episode_progress(f"verify {folder}", read_dataset(folder)["episodes"]) as on_episode:
        found = verify_dataset(folder, on_episode=on_episode)
    verdict = f"{len(found.problems)} problems" if found.problems else "all as dataset.json says"
    print(
        f"{folder}: {found.episodes:,} episodes, {found.frames:,} frames, {found.bytes / 1e6:,.1f} MB "
        f"in {found.shards} shards read whole: {verdict}"
    )
    if not found.problems:
        return
    *others, last = found.problems
    for problem in others:
        print(f"wovr: error: {problem}", file=sys.stderr)
    raise last


def keyframes(
    folders: list[Path],
    *,
    out: Path = Path(KEYFRAMES),
    memory: int = 4,
    lead: str = "4,12",
    per_episode: int = 4,
    failure_share: float = 0.7,
    gripper: int = -1,
    closes: int = 1,
    stay: int = 2,
    parting_quantile: float = 0.95,
    least_horizon: int | None = None,
    use_sim_state: bool = False,
    rows: int = 24,
    seed: int = 0,
) -> None:
    """Find starts near task-critical moments of episodes, for rollouts that begin there (KIR), and draw some of them.

    Args:
        folders: Folders of episodes of the current policy, one or more.
        out: Where keyframes.json, keyframes.npz and keyframes.png go.
        memory: Frames of memory of a keyframe; those the world model is given.
        lead: Fewest and most frames between a start and its moment; drawn for each.
        per_episode: Most keyframes of one episode.
        failure_share: Share of the keyframes that are failures, met where there are enough of both.
        gripper: Which dimension of an action is the gripper's command.
        closes: Sign of the command that closes it, 1 or -1.
        stay: Actions a gripper's command has to last.
        parting_quantile: Share of the successful frames that count as familiar; a failed episode parts from them where
            its frames are none of these.
        least_horizon: Fewest actions from a failure to the horizon; null for what the median successful episode takes
            from its last closing to success.
        use_sim_state: Find also what only the simulator's states tell: missed approaches, drops and pushes.
        rows: Keyframes on the picture.
        seed: Of what is drawn.
    """
    if rows < 1:
        raise UserError(f"a picture of {rows} rows", "give at least 1")
    rules = KeyframeRules(
        memory,
        _two_numbers(lead),
        per_episode,
        failure_share,
        gripper,
        closes,
        stay,
        parting_quantile,
        least_horizon,
        seed,
    )
    store = EpisodeStore(*folders)
    unknown = sorted({entry.meta.source for entry in store.entries if not knows_states_of(entry.meta.source)})
    if use_sim_state and unknown:
        raise UserError(
            f"{', '.join(map(str, folders))}: what simulator states of {', '.join(unknown)} mean is not known",
            f"use episodes of {', '.join(READERS)}, or set use_sim_state to false",
        )
    with episode_progress("keyframes", len(store)) as on_episode:
        finding = find_keyframes(store, rules, scene_positions if use_sim_state else None, on_episode)
    save_keyframes(out, finding.found)
    picture = out / "keyframes.png"
    write_png(keyframe_sheet(store, finding, rows), picture)
    console = PlainConsole()
    console.print(_kinds_by_task(finding))
    chosen = finding.found.keyframes
    print(
        f"{out}: {len(chosen):,} keyframes of {len(set(finding.index)):,} of {len(store):,} episodes, "
        f"{sum(keyframe.failure for keyframe in chosen) / len(chosen):.0%} failures"
        + (f"; {finding.too_short:,} episodes are too short for one" if finding.too_short else "")
    )
    console.print(f"picture: {picture}", soft_wrap=True)


def imagine(
    folders: list[Path],
    *,
    world_model: Path = Path(WORLD_MODEL),
    out: Path = Path("data/imagined"),
    episodes: int = 0,
    restart: int = 0,
    sigmas: str | None = None,
    precision: str = "bf16",
    compile: bool = False,
    device: str = "auto",
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    """Store episodes as a world model imagines them, with the success they really had, for `--data.imagined_folder`.

    Args:
        folders: Folders of real episodes, one or more.
        world_model: Checkpoint of the world model.
        out: Folder of the imagined episodes.
        episodes: How many of them, evenly spread; 0 for all.
        restart: Begin anew from the real frames after every so many, so that what is imagined stays near what happened;
            0 for never.
        sigmas: Noise levels of the sampler, a comma list that falls from 1; null for the world model's own.
        precision: fp32, or bf16 for matrix products in bfloat16.
        compile: Let torch.compile make faster code of the world model.
        device: auto (the first CUDA device if there is one, else the CPU), cpu, cuda, ...
        batch_size: Rollouts side by side; as many go to a shard.
        seed: Of the noise.
    """
    from wovr.commands.data.imagine import imagine_episodes

    try:
        levels = None if sigmas is None else [float(word) for word in sigmas.split(",")]
    except ValueError as error:
        raise UserError(f"--sigmas is '{sigmas}'", "give numbers separated by commas") from error
    there = sum(read_dataset(folder)["episodes"] for folder in folders)
    total = min(there, episodes) if episodes > 0 else there
    with episode_progress("imagine", total) as advance:
        said = imagine_episodes(
            folders,
            out,
            world_model,
            episodes=episodes,
            restart=restart,
            sigmas=levels,
            precision=precision,
            compile=compile,
            device=device,
            batch_size=batch_size,
            seed=seed,
            progress=advance,
        )
    if said is not None:
        print(f"{out}: {said}, imagined")


def _two_numbers(lead: str) -> tuple[int, int]:
    try:
        low, high = (int(word) for word in lead.split(","))
    except ValueError as error:
        raise UserError(f"--lead {lead}", "give two numbers of frames, e.g. 4,12") from error
    return low, high


def _kinds_by_task(finding: Finding) -> Table:
    """A row a task, a column a kind; failures behind the number of all."""
    chosen = finding.found.keyframes
    there = [kind for kind in KINDS if any(keyframe.kind == kind for keyframe in chosen)]
    table = Table("suite", "task", title="keyframes (failures)", title_justify="left")
    for name in (*there, "all"):
        table.add_column(name, justify="right")
    everything = sorted({(keyframe.suite, keyframe.task) for keyframe in chosen})
    for key in (*everything, None):
        rows = [keyframe for keyframe in chosen if key in (None, (keyframe.suite, keyframe.task))]
        counts = Counter(keyframe.kind for keyframe in rows) + Counter(all=len(rows))
        bad = [keyframe for keyframe in rows if keyframe.failure]
        failures = Counter(keyframe.kind for keyframe in bad) + Counter(all=len(bad))
        cells = [f"{counts[kind]:,} ({failures[kind]:,})" if counts[kind] else "" for kind in (*there, "all")]
        table.add_row(*((key[0], str(key[1])) if key else ("all", "")), *cells, end_section=key == everything[-1])
    return table


def _gather_folders(args: Sequence[str]) -> list[str]:
    """`keyframes A B --out OUT` -> `keyframes ["A", "B"] --out OUT`: a list is one word to the parser."""
    end = next((i for i, word in enumerate(args) if word.startswith("-")), len(args))
    return list(args) if end < 2 else [args[0], json.dumps(list(args[1:end])), *args[end:]]


def main(args: Sequence[str]) -> None:
    """Run `wovr data ARGS`."""
    if args and args[0] in ("keyframes", "imagine"):
        args = _gather_folders(args)
    verbs: dict[str, Callable[..., None]] = {
        "inspect": inspect,
        "verify": verify,
        "keyframes": alone_in_out(keyframes),
        "imagine": alone_in_out(imagine),
        "convert": alone_in_out(convert),
        "label": alone_in_out(label),
    }
    call(verbs, args, "data", __doc__, as_positional=True)
