"""The benchmark harness: frames, summary, report, and a short run with the relay and the floor."""

import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from socket import socket, socketpair
from typing import Any

import pytest
from click.testing import CliRunner

from alphapulse_relay.protocol_v2.control import (
    Gap,
    GapReason,
    SequenceSync,
    SyncState,
    build_control,
)
from alphapulse_relay.protocol_v2.framing import Level, MessageReader, Rules
from alphapulse_relay.protocol_v2.header import Header
from benchmarks import (
    bridge_flood,
    bridge_systems,
    bridged,
    browsers,
    handshakes,
    history,
    machine,
    page_cache,
    parts,
    report,
    stores,
    wire,
)
from benchmarks.__main__ import DOCS, main
from benchmarks.history import PARTS, History, Part
from benchmarks.loads import ALL_READ, LOADS, ONE_STALLED, Figure, Load, Target
from benchmarks.measure import Measurement, MeasurementError, allow_connections, measure
from benchmarks.replay import Replay, ReplayError, replay
from benchmarks.run import Run, started
from benchmarks.summary import (
    check_idle,
    check_pure,
    check_stalled,
    ratio,
    summarise,
)
from benchmarks.systems import SYSTEMS, Direct, Floor, JournalRelay, Relay, StartError
from benchmarks.wire import NATS, RAW, REDIS, ZMTP, build_sample

MESSAGE = bytes(216)
THROUGH = Load("through", "through", 3, (Target(Figure.RATE, 0.9), Target(Figure.CPU, 1.3)))
TIMED = Load("timed", "timed", 3, (Target(Figure.P50, 1.15),), rate=100)


def measured(rate: float = 100, p50: float = 10, p99: float = 20, lost: int = 0) -> Measurement:
    return Measurement(
        sent=1000,
        delivered=3000 - lost,
        least_delivered=1000 - lost,
        seconds=1000 / rate,
        hub_cpu_seconds=0.003,
        reader_cpu_seconds=0.5,
        p50_us=p50,
        p99_us=p99,
        max_us=99,
    )


# Frames


@pytest.mark.parametrize(
    ("framing", "sent", "got"),
    [
        (RAW, (b"", b""), (b"", b"")),
        (NATS, (b"PUB s 216\r\n", b"\r\n"), (b"MSG s 1 216\r\n", b"\r\n")),
        (
            REDIS,
            (b"*3\r\n$7\r\nPUBLISH\r\n$1\r\ns\r\n$216\r\n", b"\r\n"),
            (b"*3\r\n$7\r\nmessage\r\n$1\r\ns\r\n$216\r\n", b"\r\n"),
        ),
        (ZMTP, (b"\x00\xd8", b""), (b"\x00\xd8", b"")),
    ],
    ids=["raw", "nats", "redis", "zmtp"],
)
def test_frames_on_the_wire(
    framing: wire.Framing, sent: tuple[bytes, bytes], got: tuple[bytes, bytes]
) -> None:
    assert framing.sent(MESSAGE) == sent[0] + MESSAGE + sent[1]
    assert framing.got(MESSAGE) == got[0] + MESSAGE + got[1]


def test_the_sample_is_a_valid_message_of_216_bytes() -> None:
    sample = build_sample()
    assert len(sample) == 216
    assert sample[:8] == b"\xef\xbe\xad\xde\x02\x01\x14\x00"
    assert sample[24:28] == (184).to_bytes(4, "little")
    assert sample[32:34] == b"\x15\xb6"
    assert list(MessageReader(Rules(Level.STRICT)).feed(sample)) == [sample]


def test_the_load_generator_finds_messages_by_a_magic_that_is_only_at_their_start() -> None:
    assert build_sample().count(b"\xef\xbe\xad\xde") == 1


class Copier:
    """A hub that gives its one consumer what the publisher sends, and keeps it."""

    pid, framing = 0, RAW

    def __init__(self) -> None:
        (self.publisher, self._sent), (self.consumer, self._wanted) = socketpair(), socketpair()
        self.seen = b""
        self.thread = threading.Thread(target=self._copy)

    def connect(self, *, consumer: bool) -> socket:
        return self.consumer if consumer else self.publisher

    def _copy(self) -> None:
        with self._sent, self._wanted:
            while piece := self._sent.recv(1 << 20):
                self._wanted.sendall(piece)
                self.seen += piece


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc)")
@pytest.mark.parametrize("random", [0, wire.TLV_SIZE])
def test_messages_of_a_load_are_valid_and_as_random_as_they_are_to_be(random: int) -> None:
    load = Load("copied", "copied", 1, (), write_size=20 * 216, random=random, seconds=0.01)
    hub: Any = Copier()
    hub.thread.start()
    try:
        found = measure(hub, load, 1)
    finally:
        hub.publisher.close()
        hub.thread.join(10)
    assert found.complete
    messages = list(MessageReader(Rules(Level.STRICT)).feed(hub.seen[-20 * 216 :]))
    assert len(messages) == 20
    assert len({message[34:] for message in messages}) == (20 if random else 1)
    assert len({Header.unpack(message).timestamp for message in messages}) > 1


def talk(open_connection, answers: bytes, *, consumer: bool) -> bytes:
    """Return what a handshake says to a hub that answers so."""
    ours, hub = socketpair()
    with ours, hub:
        hub.sendall(answers)
        open_connection(ours, consumer=consumer)
        ours.shutdown(1)
        said = b""
        while piece := hub.recv(4096):
            said += piece
        return said


def test_nats_handshake() -> None:
    ours, hub = socketpair()
    with ours, hub:
        hub.sendall(b"INFO {}\r\n")
        asking = threading.Thread(target=wire.open_nats, args=(ours,), kwargs={"consumer": True})
        asking.start()
        said = wire.receive_until(hub, b"PING\r\n")
        hub.sendall(b"PONG\r\n")
        asking.join(10)
        assert not asking.is_alive()
    assert said == b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB s 1\r\nPING\r\n'


def test_redis_handshake() -> None:
    answer = b"*3\r\n$9\r\nsubscribe\r\n$1\r\ns\r\n:1\r\n"
    asked = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\ns\r\n"
    assert talk(wire.open_redis, answer, consumer=True) == asked
    assert talk(wire.open_redis, b"", consumer=False) == b""


@pytest.mark.parametrize(
    ("consumer", "rest"), [(True, b"SUB" + b"\x00\x01\x01"), (False, b"PUB")], ids=["sub", "pub"]
)
def test_zmtp_handshake(consumer: bool, rest: bytes) -> None:
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 32)
    ready = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04XSUB"
    said = talk(wire.open_zmtp, greeting + ready, consumer=consumer)
    assert said == greeting + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03" + rest


def test_a_hub_that_closes_in_the_handshake() -> None:
    ours, hub = socketpair()
    hub.close()
    with ours, pytest.raises(ConnectionError, match="handshake"):
        wire.receive_until(ours, b"PONG\r\n")


# Summary


@pytest.mark.parametrize(
    ("target", "met", "missed", "text"),
    [
        (Target(Figure.RATE, 0.9), 0.9, 0.89, "≥ 0.9"),
        (Target(Figure.P50, 1.15), 1.15, 1.16, "≤ 1.15"),
        (Target(Figure.CPU, 1.3), 1.3, 1.31, "≤ 1.3"),
    ],
)
def test_targets(target: Target, met: float, missed: float, text: str) -> None:
    assert target.met_by(met)
    assert not target.met_by(missed)
    assert str(target) == text


def test_figures_of_a_measurement() -> None:
    one = measured(rate=500)
    assert one.complete
    assert one.figure(Figure.RATE) == pytest.approx(500)
    assert one.figure(Figure.P50) == 10
    assert one.figure(Figure.P99) == 20
    assert one.figure(Figure.CPU) == pytest.approx(1.0)
    assert not measured(lost=1).complete


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    results = {
        ("through", "relay"): [measured(90), measured(10), measured(300)],
        ("through", "floor"): [measured(100), measured(10), measured(100)],
    }
    pair = ("through", "relay"), ("through", "floor")
    assert ratio(results, Figure.RATE, *pair) == pytest.approx(1.0)


def test_a_ratio_leaves_out_rounds_that_failed() -> None:
    results = {
        ("through", "relay"): [None, measured(50)],
        ("through", "floor"): [measured(1), measured(100)],
    }
    pair = ("through", "relay"), ("through", "floor")
    assert ratio(results, Figure.RATE, *pair) == pytest.approx(0.5)
    assert ratio({}, Figure.RATE, *pair) is None


def test_rows() -> None:
    results = {
        ("through", "relay"): [measured(95)],
        ("through", "floor"): [measured(100)],
        ("through", "nats"): [measured(96)],
        ("through", "redis"): [measured(20, lost=5)],
        ("timed", "relay"): [measured(p50=12)],
        ("timed", "floor"): [measured(p50=10)],
    }
    systems = ("relay", "floor", "nats", "redis")
    rate, cpu, p50 = summarise(results, [THROUGH, TIMED], systems)
    assert rate.met is True
    assert rate.ratios["relay"] == pytest.approx(0.95)
    assert rate.behind == ("nats",)
    assert rate.incomplete == {"redis"}
    assert cpu.met is True
    assert (p50.met, p50.behind) == (False, None)
    assert set(p50.medians) == {"relay", "floor"}


def test_a_relay_that_loses_messages_meets_nothing() -> None:
    results = {("timed", "relay"): [measured(lost=1)], ("timed", "floor"): [measured()]}
    (row,) = summarise(results, [TIMED], ("relay", "floor"))
    assert row.met is False


def test_without_a_floor_nothing_is_judged() -> None:
    (row,) = summarise({("timed", "relay"): [measured()]}, [TIMED], ("relay",))
    assert (row.met, row.behind, row.ratios) == (None, None, {})


def test_checks_of_the_relay_alone() -> None:
    results = {
        (ONE_STALLED.key, "relay"): [measured(p99=22), measured(p99=30)],
        (ALL_READ.key, "relay"): [measured(p99=20), measured(p99=30)],
    }
    stalled = check_stalled(results, "overtaken")
    assert stalled is not None
    assert stalled.met is True
    assert "overtaken" in stalled.measured
    assert check_stalled({}, "") is None
    assert check_idle(16 * 1024, 10).met is True
    assert check_idle(16 * 1024 + 1, 10).met is False
    through = next(load for load in LOADS if load.key == "through-3")
    pure = check_pure({("through-3", "pure"): [measured(365_000)]}, [through])
    assert pure is not None
    assert pure.met is False


# History

SCALE = 1 / 64
"""A journal of 16 MiB, loads of some 10 ms."""
THREE = build_sample() * 3
SYNC_START = SequenceSync(7, 1000, SyncState.REPLAYING)
SYNC_END = SequenceSync(7, 1000 + len(THREE), SyncState.LIVE)


def answered(*said: bytes) -> Replay:
    """Return the replay from a relay that says so, in small pieces, and closes."""
    ours, hub = socketpair()
    with ours:

        def say() -> None:
            with hub:
                wire.receive_message(hub)
                for byte in b"".join(said):
                    hub.send(bytes([byte]))

        saying = threading.Thread(target=say)
        saying.start()
        try:
            return replay(ours)
        finally:
            saying.join(10)


def control(content: Gap | SequenceSync) -> bytes:
    return build_control(content, timestamp=1)


def test_a_replay_counts_the_messages_bytes() -> None:
    gap = Gap(7, 0, 1000, GapReason.RETENTION)
    live = build_sample()
    found = answered(live, control(gap), control(SYNC_START), THREE, control(SYNC_END))
    assert found.size == len(THREE)
    assert found.seconds > 0


@pytest.mark.parametrize(
    "said",
    [(THREE[216:], control(SYNC_END)), (THREE + build_sample(), control(SYNC_END)), (THREE[-51:],)],
    ids=["less", "more", "no end"],
)
def test_a_replay_that_is_not_whole_is_an_error(said: tuple[bytes, ...]) -> None:
    with pytest.raises(ReplayError):
        answered(control(SYNC_START), *said)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_counter_finds_a_text_however_it_is_cut(size: int) -> None:
    stream = b"abcabab..abcab" + b"c" * 9
    counter = stores.Counter(b"abc")
    for start in range(0, len(stream), size):
        counter.feed(stream[start : start + size])
    assert counter.count == 3


def test_files_leave_memory_unless_they_are_mapped(tmp_path: Path) -> None:
    if machine.file_system(tmp_path) in machine.IN_MEMORY:
        pytest.skip("needs a directory on a disk")
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    (tmp_path / "empty").touch()
    assert page_cache.drop(tmp_path) == pytest.approx(1)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert not any(mapped[:: mmap.PAGESIZE])
        assert page_cache.drop(tmp_path) == pytest.approx(0)
    assert page_cache.drop(tmp_path) == pytest.approx(1)


def test_the_file_system_of_a_directory(tmp_path: Path) -> None:
    assert machine.file_system(Path("/proc/self")) == "proc"
    assert machine.file_system(tmp_path / "not" / "there") == machine.file_system(tmp_path)


def test_a_journal_in_memory_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "file_system", lambda directory: "tmpfs")
    run = History(PARTS, rounds=1, scale=SCALE)
    run.measure_all(tmp_path, lambda what: None)
    assert run.checks() == []
    assert "set TMPDIR" in run.failures[0]


def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    def fail(relay: JournalRelay, number: int, scale: float) -> parts.Figures:
        raise StartError("no room")

    broken = Part("broken", "broken part", fail, lambda rounds: [])
    run = History([broken, *PARTS[:1]], rounds=2, scale=SCALE)
    steps: list[str] = []
    run.measure_all(tmp_path, steps.append)
    assert len(steps) == run.steps == 4
    assert run.failures == ["broken part: no room"] * 2
    assert len(run.results["replay"]) == 2
    assert len(run.checks()) == 1


@pytest.fixture(scope="module")
def full_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JournalRelay]:
    allow_connections()
    relay = JournalRelay(tmp_path_factory.mktemp("history"), SCALE)
    try:
        relay.start()
        relay.prepare()
        yield relay
    finally:
        relay.stop()


EXPECTED = {
    "replay": {"bytes", "seconds"},
    "fresh": {"journal", "relay"},
    "cold": {"beside", "alone", "covered", "cold", "bytes", "seconds"},
    "filter": {"through-1", "through-1 filtered", "through-3", "through-3 filtered"},
    "crash": {"seconds", "bytes", "empty"},
    "stores": {"journal", "jetstream", "redis-streams"},
    "browsers": {
        f"{load} {who} {figure}"
        for load, kinds in (
            ("quiet", "nobody socket pages binary json stalled half-open wrong"),
            ("busy", "nobody socket pages binary json stalled"),
        )
        for who in kinds.split()
        for figure in ("p50", "p99", "cpu", "done")
    }
    - {"quiet nobody done", "busy nobody done"},
    "handshakes": {
        f"{who} {figure}"
        for who in ("nobody", *(each.key for each in handshakes.VISITORS))
        for figure in ("p50", "p99", "cpu", "rate")
    }
    - {"nobody rate"},
    "bridges": {
        *(f"through {who}" for who in ("joined", "incompressible", "relay", "nats-py", "blobs")),
        *(f"{who} {figure}" for who in ("joined", "relay", "nats-py") for figure in ("p50", "p99")),
        *(
            f"{name} {who} {mode}"
            for name in ("CPU joined", "CPU incompressible", "CPU paced")
            for who in bridged.PROCESSES
            for mode in ("user", "system")
        ),
        *(
            f"{flood} {who} {figure}"
            for flood in ("joined", "incompressible")
            for who in ("nobody", "consumer", "bridge")
            for figure in ("p50", "p99", "cpu", "flood", "held")
        ),
    },
}
MAY_BE_ZERO = re.compile("cold|CPU .*|.* held")
"""What is a part, what is counted in ticks of the kernel's, and what should not be."""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc)")
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.key)
def test_each_part_finds_its_figures(
    full_relay: JournalRelay, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "IDLE_SECONDS", 0.05)
    if part.key == "bridges" and (why := bridge_systems.Joined(full_relay.directory).missing()):
        pytest.skip(why)
    figures = part.measure(full_relay, 0, SCALE)
    missing = {k.key for k, _ in stores.RIVALS if k(full_relay.directory).missing() is not None}
    assert figures.keys() == EXPECTED[part.key] - missing
    assert all(value > 0 for name, value in figures.items() if not MAY_BE_ZERO.fullmatch(name))
    assert 0 <= figures.get("cold", 0) <= 1
    assert all(check.label and check.measured for check in part.judge([figures]))


def test_a_replay_is_of_all_that_is_kept(full_relay: JournalRelay) -> None:
    log = full_relay.status()["log"]
    assert parts.measure_replay(full_relay, 0, 1)["bytes"] == log["head"] - log["tail"] > 1 << 20


@pytest.mark.parametrize(
    ("judge", "met", "missed"),
    [
        (
            parts.judge_replay,
            {"bytes": 2e9, "seconds": 2.0},
            {"bytes": 2e9, "seconds": 2.01},
        ),
        (parts.judge_fresh, {"journal": 6.0, "relay": 10.0}, {"journal": 5.9, "relay": 10.0}),
        (
            parts.judge_cold,
            {"beside": 11, "alone": 10, "cold": 1, "covered": 1, "bytes": 1, "seconds": 1},
            {"beside": 12, "alone": 10, "cold": 1, "covered": 1, "bytes": 1, "seconds": 1},
        ),
        (
            parts.judge_filter,
            {"through-1": 10, "through-1 filtered": 7, "through-3": 10, "through-3 filtered": 7},
            {"through-1": 10, "through-1 filtered": 6, "through-3": 10, "through-3 filtered": 6},
        ),
        (
            parts.judge_start,
            {"seconds": 0.9, "bytes": 1 << 30, "empty": 0.5},
            {"seconds": 0.9, "bytes": 0.9 * (1 << 30), "empty": 0.5},
        ),
    ],
    ids=["replay", "fresh", "cold", "filter", "start"],
)
def test_judging_the_median_of_the_rounds(judge, met: parts.Figures, missed: parts.Figures) -> None:
    assert {check.met for check in judge([missed, met, met])} == {True}
    assert {check.met for check in judge([missed, met, missed])} == {False}


def test_stores_are_told_and_not_judged() -> None:
    told = parts.judge_stores([{"journal": 3, "redis-streams": 2}, {"journal": 5}])
    assert [(check.measured, check.met) for check in told] == [
        ("4 messages/s", None),
        ("2 messages/s", None),
    ]


def beside(p99: float) -> parts.Figures:
    """Return the figures of a round in which nobody's p99 is 10, and everybody else's this."""
    kinds = [browsers.NOBODY, *browsers.VISITORS]
    names = [f"{load.key} {each.key}" for each in kinds for load in each.loads]
    return {
        f"{name} {figure}": 10.0 if name.endswith("nobody") else p99
        for name in names
        for figure in ("p50", "p99", "cpu")
    }


def test_visitors_are_judged_but_not_those_that_they_are_compared_with() -> None:
    for p99, met in ((11.0, True), (11.2, False)):
        checks = browsers.judge_browsers([beside(1.0), beside(p99), beside(99.0)])
        others = [check.met for check in checks if "on the socket" in check.label]
        assert others == [None, None]
        assert [check.met for check in checks if check.target] == [met] * 10


def test_handshakes_are_judged() -> None:
    def found(p99: float) -> parts.Figures:
        keys = [each.key for each in handshakes.VISITORS]
        figures = {f"{key} {name}": p99 for key in keys for name in ("p50", "p99", "cpu", "rate")}
        return figures | {f"nobody {name}": 10.0 for name in ("p50", "p99", "cpu")}

    for p99, met in ((11.0, True), (11.2, False)):
        checks = handshakes.judge_handshakes([found(1.0), found(p99), found(99.0)])
        assert [check.met for check in checks] == [met] * len(handshakes.VISITORS)


def joined(rate: float = 1e6, later: float = 10.0) -> parts.Figures:
    """Return the figures of a round in which nobody's p50 and p99 are 10, and all others' this."""
    keys = EXPECTED["bridges"]
    return {
        key: rate if key.startswith("through") else 10.0 if " nobody " in key else later
        for key in keys
    }


def test_bridges_are_judged_by_what_goes_through_and_by_the_relay_beside_them() -> None:
    def judged(*rounds: parts.Figures) -> list[bool]:
        return [check.met for check in bridged.judge_bridge(rounds) if check.met is not None]

    met = joined(later=11.0)
    assert judged(joined(rate=1), met, met) == [True, True, True]
    assert judged(joined(rate=999_999), met, joined(rate=1, later=11.0)) == [False, True, True]
    assert judged(met, joined(later=11.2), joined(later=99.0)) == [True, False, False]
    slow = {"incompressible bridge p99": 11.2}
    assert judged(met | slow) == [True, True, False]


def test_what_a_consumer_costs_is_told_and_that_of_a_bridge_is_judged() -> None:
    checks = [each for each in bridged.judge_bridge([joined()]) if "beside a flood" in each.label]
    assert [each.label.partition("goes to ")[2] for each in checks if each.target] == [
        "a bridge"
    ] * 2
    assert len(checks) == 4


def test_cpu_time_between_the_relays_is_told_by_process() -> None:
    times = {
        f"CPU joined {who} {mode}": 0.25 for who in bridged.PROCESSES for mode in ("user", "system")
    }
    told, _ = (
        check for check in bridged.judge_bridge([joined() | times]) if "a million" in check.label
    )
    assert told.measured.startswith("2.50 s of a core: relay A 0.25 + 0.25, bridge A 0.25 + 0.25")


def test_without_nats_bridges_are_not_measured(
    full_relay: JournalRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_systems.Joined, "missing", lambda self: "is not installed")
    with pytest.raises(MeasurementError, match="bridges: is not installed"):
        bridged.measure_bridge(full_relay, 0, SCALE)


def test_cpu_time_of_a_process_has_that_of_its_threads() -> None:
    def work() -> None:
        until = time.thread_time() + 0.1
        while time.thread_time() < until:
            pass

    before = bridge_systems.cpu_time(os.getpid())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    used = bridge_systems.cpu_time(os.getpid()) - before
    assert used.user + used.system >= 0.05  # what a tick is too coarse for is lost


def test_a_flood_is_of_valid_messages_of_another_source() -> None:
    first, second, *_ = bridge_flood.build_runs(3, 0)
    messages = list(MessageReader(Rules(Level.STRICT)).feed(first + second))
    assert [len(message) for message in messages] == [216] * 6
    headers = [Header.unpack(message) for message in messages]
    assert {header.publisher for header in headers} == {wire.SOURCE + 1}
    assert [header.sequence for header in headers] == [1, 2, 3, 4, 5, 6]


def test_what_is_random_cannot_be_compressed() -> None:
    alike, unlike = (bridge_flood.build_runs(300, size)[0] for size in (0, wire.TLV_SIZE))
    assert len(zlib.compress(unlike)) > 0.8 * len(unlike) > 8 * len(zlib.compress(alike))


def test_a_flood_has_a_consumer_and_tells_what_it_published(full_relay: JournalRelay) -> None:
    def grown(counter: str) -> int:
        return full_relay.status()["counters"][counter] - before[counter]

    before = full_relay.status()["counters"]
    path = full_relay.directory / "socket"
    command = (sys.executable, "-m", "benchmarks.bridge_flood", path, "1000", "0")
    deadline = time.monotonic() + 20
    with bridged.started(command) as process:
        bridged.wait_until_ready(process)
        while not grown("messages_delivered") and time.monotonic() < deadline:
            pass
        sent = bridged.result_of(process)
    while grown("messages_received") < sent and time.monotonic() < deadline:
        pass
    assert grown("messages_received") == sent >= grown("messages_delivered") >= 1


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise SystemExit('no room')", "failed: no room"),
        ("import os; os._exit(1)", "failed: it said nothing"),
    ],
)
def test_a_program_that_fails_is_told(program: str, said: str) -> None:
    with (
        bridged.started((sys.executable, "-c", program)) as process,
        pytest.raises(MeasurementError, match=said),
    ):
        bridged.result_of(process)


def test_visitors_that_are_turned_away_are_told(
    full_relay: JournalRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (visitors,) = (each for each in browsers.VISITORS if each.key == "binary")
    with socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        monkeypatch.setattr(JournalRelay, "port", property(lambda relay: port))
        with pytest.raises(MeasurementError, match=r"a WebSocket: .*refused"):
            browsers.measure_beside(visitors, full_relay, parts.PACED, SCALE)


def test_another_one_is_first_in_each_round() -> None:
    done: list[str] = []
    for number in range(3):
        parts.in_turn(number, lambda: done.append("with"), lambda: done.append("without"))
    assert done == ["with", "without", "without", "with", "with", "without"]


def test_what_a_full_journal_costs() -> None:
    results = {
        ("through-1", "journal"): [measured(85)],
        ("through-1", "relay"): [measured(100)],
        ("through-3", "journal"): [measured(84)],
        ("through-3", "relay"): [measured(100)],
        ("timed-1", "journal"): [measured(p50=11.1)],
        ("timed-1", "relay"): [measured(p50=10)],
    }
    assert [check.met for check in history.check_steady(results)] == [True, False, False]
    assert history.check_steady({}) == []


# Order of measurements


def test_each_round_begins_with_another_system(tmp_path: Path) -> None:
    relay, floor, direct = Relay(tmp_path), Floor(tmp_path), Direct(tmp_path)
    run = Run([relay, floor, direct], [THROUGH], rounds=2, scale=1, alone=True)
    keys = [(load.key, system.key) for load, system in run.steps()]
    assert keys == [
        ("through", "relay"),
        ("through", "floor"),
        ("one-stalled", "relay"),
        ("all-read", "relay"),
        ("through", "floor"),
        ("through", "relay"),
        ("all-read", "relay"),
        ("one-stalled", "relay"),
    ]


def test_keys_name_one_thing_each() -> None:
    assert len({kind.key for kind in SYSTEMS}) == len(SYSTEMS)
    keys = [*(load.key for load in LOADS), *(part.key for part in PARTS)]
    assert len(set(keys)) == len(keys)


def test_a_system_that_does_not_start_is_left_out(tmp_path: Path) -> None:
    class Broken(Floor):
        def command(self):
            return sys.executable, "-c", "raise SystemExit('no room')"

    class Missing(Floor):
        def missing(self):
            return "is not installed"

        key = "missing"

    with started([Broken(tmp_path), Missing(tmp_path)]) as absent:
        assert absent == {"floor": "did not start: no room", "missing": "is not installed"}


# Report


def test_results_go_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    report.update_page(page, "new")
    assert page.read_text() == f"above\n{report.BEGIN}\n\nnew\n\n{report.END}\nbelow\n"
    assert [each.name for each in tmp_path.iterdir()] == ["performance.md"]


@pytest.mark.parametrize(
    "text", ["", report.BEGIN, f"{report.END}{report.BEGIN}", f"{report.BEGIN}{report.END}" * 2]
)
def test_a_page_without_markers_is_an_error(tmp_path: Path, text: str) -> None:
    page = tmp_path / "performance.md"
    page.write_text(text)
    with pytest.raises(report.ReportError, match="results begin"):
        report.update_page(page, "new")
    assert page.read_text() == text


def test_no_page_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(report.ReportError, match="No such file"):
        report.check_page(tmp_path / "performance.md")


def test_an_unknown_system_is_an_error() -> None:
    result = CliRunner().invoke(main, ["--systems", "relay,rust"])
    assert result.exit_code == 2
    assert "'rust' is none of relay, journal, pure, floor" in result.output


# The real thing


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc)")
def test_a_quick_run_of_relay_journal_and_floor(tmp_path: Path) -> None:
    loads = "through-3,single-3,timed-3,timed-100"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--systems", "relay,journal,floor"]
    subprocess.run(
        [*command, "--loads", f"{loads},replay", "--output", str(tmp_path)],
        check=True,
        cwd=Path(__file__).parents[1],
        timeout=120,
    )
    found = json.loads((tmp_path / "performance.json").read_text())
    assert found["failures"] == []
    assert found["complete"] is True
    raw = found["measurements"]
    assert len(raw) == 3 * len(loads.split(","))
    for each in raw:
        figures = each["figures"]
        assert figures["least_delivered"] == figures["sent"] > 0
        assert figures["hub_cpu_seconds"] > 0
        assert (figures["p50_us"] > 0) == each["load"].startswith("timed")
    table = (tmp_path / "performance.md").read_text()
    assert table.startswith(report.BEGIN)
    assert "| 64 KiB per write, to 3 | messages/s |" in table
    assert "| of the relay with a journal | measured | target | met |" in table
    assert "†" not in table
    (replayed,) = found["history"]["rounds"]["replay"]
    assert replayed["bytes"] > replayed["seconds"] > 0
    labels = [check["label"] for check in found["history"]["checks"]]
    assert labels[0] == "with a full journal / without: messages/s, 64 KiB per write, to 3"
    assert labels[1].startswith("replay of all that is kept")


def test_the_page_has_a_place_for_the_results() -> None:
    report.check_page(DOCS / "performance.md")
