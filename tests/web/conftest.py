"""Fixtures of the side port's tests: a hub as its own tests have it, and one with a journal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import clock, hub, logged, make_hub
from tests.web.journaled import JournaledHub

__all__ = ["clock", "hub", "journaled", "logged", "make_hub"]


@pytest.fixture
def journaled(clock: Any, tmp_path: Path) -> Iterator[JournaledHub]:
    """A hub with a journal, that must be left without a trace."""
    made = JournaledHub(clock, tmp_path / "journal")
    yield made
    made.finish()
