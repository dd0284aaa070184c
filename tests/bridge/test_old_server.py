"""A nats-server older than 2.10, as Debian has it: what goes, and what is told of what does not."""

import asyncio
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from alphapulse_relay.bridge import bridge as module
from alphapulse_relay.bridge import outward, server
from tests.bridge.joined import a_bridge, arrived, head, send, until
from tests.bridge.servers import NATS
from tests.support import messages

PLACES = (f"{sysconfig.get_path('scripts')}/nats-server-debian", "/usr/sbin/nats-server")


def old_program() -> str:
    for place in filter(shutil.which, PLACES):
        said = subprocess.run([place, "--version"], capture_output=True, text=True, check=True)
        if re.search(r"v2\.[0-9]\.", said.stdout):
            return place
    pytest.skip("no nats-server before 2.10 is installed")


@pytest.fixture
def old_nats(tmp_path: Path) -> Iterator[NATS]:
    with NATS(tmp_path, program=old_program()) as running:
        yield running


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(outward, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(server, "RECONNECT_SECONDS", 0.1)


@pytest.mark.parametrize("options", [{}, {"split_by_type": "true"}])
def test_all_that_is_sent_is_everywhere_though_the_server_dies(
    tmp_path: Path, relays: tuple[Path, Path], old_nats: NATS, options: dict[str, Any]
) -> None:
    one, two = messages(20, 3000), messages(21, 3000)

    async def go() -> None:
        since = [head(relay) for relay in relays]
        a, b = (
            a_bridge(tmp_path, relay, old_nats.url, name, **options)
            for relay, name in zip(relays, "ab", strict=True)
        )
        async with a as ours, b as theirs:
            await until(lambda: ours.trouble is None and theirs.trouble is None)
            send(relays[0], *one)
            await arrived(relays[1], since[1], one)
            old_nats.restart()
            send(relays[1], *two)
            for relay, place in zip(relays, since, strict=True):
                await arrived(relay, place, one + two)

    asyncio.run(go())


def test_it_cannot_choose_several_relays_which_is_told(
    tmp_path: Path, relays: tuple[Path, Path], old_nats: NATS
) -> None:
    async def go() -> None:
        bridge = a_bridge(tmp_path, relays[0], old_nats.url, "a", take_from=["b", "c"])
        async with bridge as ours:
            await until(lambda: "2.10 is needed" in (ours.trouble or ""))

    asyncio.run(go())
