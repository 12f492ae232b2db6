"""`wovr bench WHAT`: speeds on this machine, each beside the ceiling that the same run measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wovr.commands.arguments import call
from wovr.commands.bench.collect import bench_collect
from wovr.commands.bench.imagination import bench_imagination
from wovr.commands.bench.loader import bench_loader

BENCHMARKS: dict[str, Callable[..., None]] = {
    "collect": bench_collect,
    "loader": bench_loader,
    "imagination": bench_imagination,
}
"""What there is to measure: name on the command line -> function whose arguments are the options."""


def main(args: Sequence[str]) -> None:
    """Run `wovr bench ARGS`."""
    call(BENCHMARKS, args, "bench", __doc__)
