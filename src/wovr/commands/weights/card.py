"""The model card of packed weights: what they are, the commands that made them, what was measured of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wovr import __version__
from wovr.commands.pace.folders import read_record
from wovr.commands.places import Chain
from wovr.data.store.dataset import read_dataset
from wovr.printing import printable
from wovr.runs import atomic_write, read_json

MOST_FIGURES = 12
"""Numbers shown of a stage."""

_NOT_SHOWN = ("inputs", "curve", "outcomes", "tried", "seconds", "parameters", "steps", "videos", "tasks")


@dataclass(frozen=True)
class Packed:
    """A network that was packed.

    Attributes:
        file: Its file.
        stage: The stage of the chain that made it.
        parameters: Numbers in it.
        size: Bytes of the file.
    """

    file: str
    stage: str
    parameters: int
    size: int


def write_card(path: Path, chain: Chain, packed: Sequence[Packed], episodes: Path) -> None:
    """Write the card as Markdown; the front matter is what a hub reads.

    Args:
        path: Where.
        chain: The chain that made them.
        packed: The networks.
        episodes: Folder of the packed episodes.
    """
    dataset = read_dataset(episodes)
    when = time.strftime("%Y-%m-%d", time.gmtime(chain.finished))
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: wovr",
        "tags: [robotics, world-model, reinforcement-learning]",
        "---",
        "",
        f"# wovr: {_word(chain.suite)}",
        "",
        f"What a chain of `wovr pace` learned on the suite `{_word(chain.suite)}`, finished {when}, packed by wovr "
        f"{__version__}. Weights are in half precision but for small tensors; there is no optimiser. Nothing in a file "
        "is unpickled, and its class is one of the package's own.",
        "",
        "| file | made by stage | parameters | MB |",
        "|---|---|---|---|",
        *(f"| `{one.file}` | {_word(one.stage)} | {one.parameters:,} | {one.size / 1e6:.1f} |" for one in packed),
        "",
        f"`episodes/`: {dataset['episodes']} real episodes, {dataset['frames']} frames, to begin from. Sizes and "
        "SHA-256 of all files: `weights.json`.",
        "",
        "```sh",
        "wovr play",
        "```",
        "",
        "## Measured",
        "",
        "By the chain, before the weights were rounded. Success rates are of real episodes in initial states that "
        "nothing was trained on.",
        "",
        "| stage | of | success | 95 % interval | episodes | temperature |",
        "|---|---|---|---|---|---|",
    ]
    rates, figures, commands = [], [], []
    for stage, words in chain.stages.items():
        folder = chain.folder / stage
        values = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
        commands.append(str(read_record(folder).get("command", "")))
        if isinstance(values.get("sr"), dict):
            rates.append(_rate(stage, words, values))
        else:
            shown = [f"{name} {value:.4g}" for name, value in _numbers(values)][:MOST_FIGURES]
            figures += [f"| {_word(stage)} | {'; '.join(shown)} |"] if shown else []
    lines += rates or ["| none yet | | | | | |"]
    lines += ["", "| stage | figures |", "|---|---|", *figures, "", "## Commands", "", "```sh"]
    lines += [printable(" ".join(command.split())) for command in commands if command]
    lines += ["```", ""]
    with atomic_write(path) as file:
        file.write("\n".join(lines).encode())


def _rate(stage: str, words: Sequence[str], values: dict[str, Any]) -> str:
    """A row: whose success was measured, and how often it came."""
    whole = values["sr"].get("all") or {}
    policy = next((words[i + 1] for i, word in enumerate(words[:-1]) if word == "--policy"), "")
    policy = policy.removeprefix("{stage:").partition("}")[0]
    interval = f"{100 * whole.get('low', float('nan')):.1f} to {100 * whole.get('high', float('nan')):.1f}"
    temperature = values["sr"].get("temperature", (values.get("inputs") or {}).get("temperature"))
    rate = f"{100 * whole.get('success_rate', float('nan')):.1f} %"
    return (
        f"| {_word(stage)} | {_word(policy)} | {rate} | {interval} | {whole.get('episodes', '')} | "
        f"{json.dumps(temperature)} |"
    )


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested dictionaries, by name; those of validation alone where there are any."""
    if isinstance(value, dict):
        keys = [key for key in value if key not in _NOT_SHOWN]
        validated = [key for key in keys if str(key).startswith("val/")]
        for key in validated or keys:
            yield from _numbers(value[key], f"{name}.{key}".strip(".").removeprefix("metrics."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield _word(name), float(value)


def _word(text: str) -> str:
    """Somebody's name of a thing, as one cell of a table."""
    return printable(text).replace("|", "/").replace("`", "'")[:80]
