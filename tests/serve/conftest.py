"""What the tests of the server are served: written once, loaded for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.tiny_play import engine_of, write_parts
from wovr.serve.engine import Engine


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("play"))


@pytest.fixture
def engine(parts: Path) -> Iterator[Engine]:
    with engine_of(parts) as engine:
        yield engine
