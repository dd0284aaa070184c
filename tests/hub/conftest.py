"""Fixtures of the hub's tests: a clock, a hub that must end clean, and what was logged."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import globalLogPublisher

from alphapulse_relay.hub import epoch
from tests.hub.door import Door
from tests.hub.fakes import Events, Hub, Ordinary, Pipe, make_clock
from tests.hub.journals import Kept


@pytest.fixture(autouse=True)
def logged() -> Iterator[Events]:
    """What is logged during the test; a failure that the test does not flush fails it."""
    events = Events()
    globalLogPublisher.addObserver(events)
    yield events
    globalLogPublisher.removeObserver(events)
    assert not events.flush_failures()


@pytest.fixture
def clock() -> Any:
    return make_clock()


@pytest.fixture
def make_hub(clock: Any) -> Iterator[Callable[..., Hub]]:
    """Makes hubs; in the end each must be left by all peers without a trace."""
    hubs: list[Hub] = []

    def make(**options: Any) -> Hub:
        hubs.append(Hub(clock, **options))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.finish()


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    """A hub whose transports are as sockets."""
    return make_hub()


@pytest.fixture(params=[Pipe, Ordinary])
def any_hub(request: pytest.FixtureRequest, make_hub: Callable[..., Hub]) -> Hub:
    """A hub over each kind of transport."""
    return make_hub(transport=request.param)


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a Unix socket may be: its path has room for 107 bytes, and pytest's are long."""
    directory = Path(tempfile.mkdtemp(prefix="hub-"))
    yield directory / "s.sock"
    shutil.rmtree(directory)


@pytest.fixture
def make(tmp_path: Path, clock: Any) -> Iterator[Callable[..., Kept]]:
    """Opens the journal of one directory; the last one is left in order."""
    opened: list[Kept] = []

    def make(**options: Any) -> Kept:
        opened.append(Kept(tmp_path / "journal", clock, **options))
        clock.advance(0)
        return opened[-1]

    yield make
    if opened and not opened[-1].maker._closed:
        opened[-1].close()
        clock.advance(0)
        assert not clock.getDelayedCalls()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the machine tells which of its starts this is."""
    path = tmp_path / "boot_id"
    path.write_text("first\n")
    monkeypatch.setattr(epoch, "BOOT_ID", path)
    return path


@pytest_twisted.async_yield_fixture
async def door(path: Path) -> Any:
    """A hub behind ``mtls:``."""
    door = Door(path.parent)
    await door.listen()
    yield door
    await door.close()
