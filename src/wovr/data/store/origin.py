"""What stored episodes say of the environment they come from: compared with what the user says, and never followed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wovr.data.store.reader import EpisodeStore

_SHOWN = 200
"""Characters of somebody's arguments that are shown."""


@dataclass(frozen=True)
class Origin:
    """Where episodes come from, by their own account.

    Attributes:
        sources: Every `EpisodeMeta.source` among them, sorted.
        env_args: `extra.collect.env_args` of each folder's `dataset.json`, whatever stands there; None where nothing.
    """

    sources: Sequence[str]
    env_args: Sequence[Any]

    @classmethod
    def of(cls, store: EpisodeStore) -> Origin:
        """What the episodes of a store say."""
        collected = [dataset["extra"].get("collect") for dataset in store.datasets]
        return cls(
            sorted({entry.meta.source for entry in store.entries}),
            [of_folder.get("env_args") if isinstance(of_folder, dict) else None for of_folder in collected],
        )

    def differences(self, env: str, env_args: Mapping[str, Any]) -> list[str]:
        """A sentence for each thing in which a replay's environment differs from what the episodes say.

        Args:
            env: Environment of the replay, as the user named it.
            env_args: Arguments of its class, the user's too.
        """
        notes = [
            f"the episodes say they come from '{source[:_SHOWN]}', the replay is in --env {env}"
            for source in self.sources
            if source != env
        ]
        given = _text(dict(env_args))
        for stored in dict.fromkeys(_text(stored) for stored in self.env_args if stored is not None):
            if stored != given and self.sources == [env]:
                notes.append(
                    f"the episodes say they were collected with --env_args {stored[:_SHOWN]}, the replay has {given}"
                )
        return notes


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
