"""The fuzz targets: a short run of each, and that each sees what is wrong."""

import random
import struct
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alphapulse_relay.hub.dialogue import Dialogue, RequestError
from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.journal.salvage import Salvage
from alphapulse_relay.options import OptionError
from alphapulse_relay.protocol_v2 import framing as wire
from alphapulse_relay.protocol_v2.control import (
    ControlMessage,
    Subscribe,
    build_control,
)
from fuzz import framing
from fuzz.__main__ import TARGETS, fuzz, main
from fuzz.choices import Choices
from fuzz.guarded import Guarded
from tests.support import PATIENCE

RUNS = 1000
SECONDS = 2
"""Of libFuzzer, for each target: the slow ones try fewer inputs."""


def target(name: str) -> Any:
    return import_module(f"fuzz.{name}")


def try_seeds(name: str, mutations: int = 100) -> None:
    """Give a target its seeds, and some of them changed a little."""
    one, chance = target(name), random.Random(name)
    seeds = list(one.seeds())
    for seed in seeds:
        one.run(seed)
    for _ in range(mutations):
        data = bytearray(chance.choice(seeds))
        for _ in range(1 + chance.randrange(3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        one.run(bytes(data))


class TestRun:
    """By libFuzzer, which is where there are wheels of atheris."""

    @pytest.fixture(autouse=True)
    def _atheris(self) -> None:
        pytest.importorskip("atheris", reason="there is no atheris for this machine")

    @pytest.mark.parametrize("name", TARGETS)
    def test_nothing_is_found(self, name: str, tmp_path: Path) -> None:
        outcome = fuzz(name, tmp_path, [f"-runs={RUNS}", f"-max_total_time={SECONDS}", "-seed=1"])
        assert outcome.status == 0
        assert outcome.findings == []
        assert outcome.inputs > 100
        assert f"{name}: {outcome.inputs} inputs in " in outcome.summary(name)
        assert "findings: 0" in outcome.summary(name)

    def test_a_planted_fault_is_found_and_kept(self, tmp_path: Path) -> None:
        """One that no seed shows: some sources are always accepted."""
        planted = (
            "from fuzz import engine, framing; import sys; fault = framing._fault;"
            "framing._fault = lambda message, header, rules:"
            " None if header.source > 200 else fault(message, header, rules);"
            "engine.fuzz(framing, sys.argv[1:])"
        )
        outcome = fuzz("framing", tmp_path, ["-runs=200000", "-seed=1"], ["-c", planted])
        assert outcome.status != 0
        (finding,) = outcome.findings
        framing.run(finding.read_bytes())  # the fault was planted in that process only


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_show_nothing(name: str) -> None:
    try_seeds(name)


def test_a_finding_can_be_tried_again(tmp_path: Path) -> None:
    finding = tmp_path / "crash-1"
    finding.write_bytes(b"\0types=21")
    result = CliRunner().invoke(main, ["query", str(finding)])
    assert result.output == f"{finding}: as it must be\n"
    assert result.exit_code == 0


def test_what_is_read_behind_the_end_ends_the_process() -> None:
    code = (
        "from fuzz.guarded import Guarded; import ctypes;"
        "view = Guarded(10).put(b'0123456789'); print(bytes(view), flush=True);"
        "ctypes.string_at(ctypes.addressof(ctypes.c_char.from_buffer(view)), 11)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.stdout == b"b'0123456789'\n"
    assert done.returncode < 0


def test_choices_end_in_zeros() -> None:
    choices = Choices(b"\1\2\3\4\5")
    assert (choices.byte(), choices.number(2), choices.take(1)) == (1, 0x0302, b"\4")
    assert choices
    assert (choices.rest(), choices.byte(), choices.number(4), choices.rest()) == (b"\5", 0, 0, b"")
    assert not choices


def test_guarded_is_put_at_the_end() -> None:
    guarded = Guarded(5000)
    assert bytes(guarded.put(b"abc")) == b"abc"
    assert bytes(guarded.put(b"")) == b""


# Each target sees what is wrong: here in a hand-made wrong implementation


def accept_all(*_: Any) -> None:
    """Find nothing wrong."""


def wrong_order(chunk: memoryview, accepted: int, start: int, stop: int) -> int:
    """Close over what was dropped, but move no bytes."""
    return accepted + stop - start


def one_more(chunk: memoryview, start: int, end: int, compiled: Any) -> tuple[int, int]:
    """Skim as nothing does, and count one."""
    return start, 1


def lose_start(content: ControlMessage, *, timestamp: int) -> bytes:
    """Build a Subscribe that always begins in the same place."""
    if isinstance(content, Subscribe):
        content = replace(content, start_value=0)
    return build_control(content, timestamp=timestamp)


def received(dialogue: Dialogue, message: bytes, offset: int) -> None:
    """Do what is asked for, and raise where it cannot be had."""
    dialogue._carry_out(message)


def unheard(origin: str, request: Any) -> bool:
    return True


FAULTS: dict[str, tuple[str, Any, str, Any]] = {
    "a wrong checksum is accepted": ("framing", wire, "_checksum_fault", accept_all),
    "what was dropped stays": ("framing", wire, "_close_over", wrong_order),
    "the builds differ": ("framing", framing, "SKIMS", [framing.SKIMS[0], one_more]),
    "a start is lost": ("control", target("control"), "build_control", lose_start),
    "an error is raised": ("dialogue", Dialogue, "received", received),
    "damage is served": (
        "recovery",
        import_module("alphapulse_relay.journal.mending"),
        "_fits",
        lambda run, crc: True,
    ),
    "damage is not told": (
        "recovery",
        import_module("alphapulse_relay.journal.mending"),
        "salvage",
        lambda run: Salvage(0, []),
    ),
    "a hole is read": ("directory", Segment, "hole_at", lambda segment, position: None),
    "a number is too large": (
        "query",
        import_module("alphapulse_relay.web.query"),
        "_count",
        lambda text, most: 1 << 64,
    ),
    "any origin is welcome": (
        "query",
        import_module("alphapulse_relay.web.access"),
        "_is_same_host",
        unheard,
    ),
    "no token is needed": (
        "query",
        import_module("alphapulse_relay.web.access").Access,
        "_has_token_needed",
        lambda *_: True,
    ),
    "an error has two lines": (
        "config",
        OptionError,
        "__str__",
        lambda error: "\n".join(map(str, error.args)) + "\n\n",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    name, owner, attribute, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, attribute, wrong)
    with pytest.raises((AssertionError, RequestError, ValueError, struct.error)):
        try_seeds(name)
