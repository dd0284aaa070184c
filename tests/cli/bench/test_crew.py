"""The processes of a benchmark."""

import os
import signal
import time

import pytest

from alphapulse_relay.cli.bench.crew import Crew, MemberFailure
from alphapulse_relay.cli.bench.load import Load
from tests.cli.conftest import PATIENCE


def direct(crew: Crew, **options: object) -> Load:
    defaults = {"consumers": crew.consumers, "size": 216, "seconds": 0.1, "rate": None}
    made = {"path": crew.direct_path, "relayed": False, "timestamp": 1, **defaults, **options}
    return Load(**made)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_loads_one_after_the_other():
    ticks: list[float] = []
    with Crew(2) as crew:
        assert len(crew.pids) == 3
        steady = crew.run(direct(crew, rate=100), lambda: ticks.append(time.monotonic()))
        full = crew.run(direct(crew), lambda: None)
        assert crew.messages == 0  # none to a relay
    assert steady.published.messages == 12
    assert [len(each.latencies) for each in steady.received] == [10, 10]
    assert {each.messages for each in full.received} == {full.published.messages}
    assert ticks
    assert not any(map(alive, crew.pids))


def test_a_process_that_ends_is_told():
    with Crew(1) as crew:
        consumer = min(crew.pids)
        killed: list[int] = []

        def kill() -> None:
            if not killed:
                os.kill(consumer, signal.SIGKILL)
                killed.append(consumer)

        with pytest.raises(MemberFailure, match=r"its process ended early|closed the connection"):
            crew.run(direct(crew, seconds=PATIENCE), kill)
    assert not any(map(alive, crew.pids))


def test_no_relay_any_more():
    with Crew(1) as crew, pytest.raises(MemberFailure) as raised:
        crew.run(direct(crew, path="/nothing/there.sock", relayed=True), lambda: None)
    assert raised.value.message.startswith("consumer 1: no relay: there is no socket /nothing")
    assert raised.value.pid in crew.pids
