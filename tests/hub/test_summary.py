"""The line for people: peers, rate and journal of a hub whose traffic is known."""

import re
from pathlib import Path

from alphapulse_relay.hub.summary import Summary
from tests.hub.fakes import make_clock
from tests.support import messages
from tests.web.journaled import JournaledHub


def test_a_summary(tmp_path: Path) -> None:
    clock = make_clock()
    hub = JournaledHub(clock, tmp_path)
    summary = Summary(hub.factory, hub.journal)
    clock.advance(1)
    assert re.fullmatch(r"0 peers, 0 messages/s, journal of [0-9]+ MiB", summary())
    sender = hub.connect()
    sender.send(*messages(20, 10))
    clock.advance(2)
    assert summary().startswith("1 peer, 5 messages/s, ")
    hub.finish()
