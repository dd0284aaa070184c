"""What a relay says of itself, and what of that is wrong."""

import os
import sys
from pathlib import Path

import pytest

from alphapulse_relay import __version__
from alphapulse_relay.cli.doctor import relay, system
from alphapulse_relay.cli.findings import Finding
from alphapulse_relay.cli.snapshot import Silence
from alphapulse_relay.cli.words import Failure
from tests.cli.doctor.subjects import found, only, running
from tests.cli.side_port import document


def sound() -> dict[str, object]:
    """Return the status of a relay that is well."""
    content = document() | {"version": __version__, "pid": os.getpid()}
    content["counters"] |= {"dropped": {"magic": 0}, "missed": {"overtaken": 0}}
    for peer in content["peers"]:
        peer["bytes_behind"] = 0
    return content


class TestSidePort:
    def check(self, directory: Path, answer: object, **flags: str):
        one = running(directory, os.getpid(), answer, **flags)
        one.listens = True
        return only(relay.check_side_port, one)

    def test_answers(self, tmp_path: Path) -> None:
        finding = self.check(tmp_path, sound(), web="tcp:9760:interface=127.0.0.1")
        assert finding.verdict == "ok"
        assert finding.what == "http://127.0.0.1:9760/api/status answers"

    def test_silent(self, tmp_path: Path) -> None:
        finding = self.check(tmp_path, Failure("no answer"), web="tcp:9760")
        assert (finding.verdict, finding.what) == ("wrong", "no answer")

    def test_a_failure_steers_no_terminal(self, tmp_path: Path) -> None:
        finding = self.check(tmp_path, Failure("answers 500 \x1b[2J"), web="tcp:9760")
        assert finding.what == "answers 500 ?[2J"

    def test_hangs(self, tmp_path: Path) -> None:
        finding = self.check(tmp_path, Silence("no answer"), web="tcp:9760")
        assert finding.verdict == "wrong"
        assert f"is silent: pid {os.getpid()} hangs" in finding.what

    def test_stopped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system, "is_stopped", lambda _: True)
        finding = self.check(tmp_path, Silence("no answer"), web="tcp:9760")
        assert finding.what.endswith(f"is silent: pid {os.getpid()} is stopped")
        assert finding.mend == f"kill -CONT {os.getpid()}"

    def test_where_it_is_may_be_wrong(self, tmp_path: Path) -> None:
        finding = self.check(tmp_path, Failure("no answer"), web="tcp:x")
        assert finding.verdict == "note"

    def test_of_another_relay(self, tmp_path: Path) -> None:
        finding = self.check(tmp_path, sound() | {"pid": 1}, web="tcp:9760")
        assert finding.verdict == "wrong"
        assert finding.what.endswith(f"is of pid 1, the relay is pid {os.getpid()}")

    @pytest.mark.parametrize("web", ["none", "unix:/run/web.sock"])
    def test_none_that_can_be_asked(self, tmp_path: Path, web: str) -> None:
        assert self.check(tmp_path, None, web=web).verdict == "note"

    def test_without_a_socket(self, tmp_path: Path) -> None:
        one = running(tmp_path, os.getpid(), sound(), web="tcp:9760")
        assert only(relay.check_side_port, one).verdict == "note"

    def test_no_relay(self, tmp_path: Path) -> None:
        one = running(tmp_path, os.getpid(), Failure("no answer"), web="tcp:9760")
        assert found(relay.check_side_port, one) == []


class TestFile:
    def check(self, path: Path, restart: list[str], read_at: float) -> list[tuple[str, str]]:
        config = path / "relay.toml"
        config.touch()
        os.utime(config, (100, 100))
        content = sound() | {"settings": {"read_at": read_at, "restart": restart}}
        return found(relay.check_file, running(path, os.getpid(), content, config=str(config)))

    def test_in_force(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, [], 100.0) == [
            ("ok", f"the relay goes by {tmp_path}/relay.toml")
        ]

    def test_changed_since(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, [], 99.9) == [
            ("note", f"{tmp_path}/relay.toml was changed since the relay read its settings")
        ]

    def test_needs_a_restart(self, tmp_path: Path) -> None:
        told = "the relay has other values than it would start with: --fsync, --cpu"
        assert self.check(tmp_path, ["--fsync", "--cpu"], 100.0) == [("note", told)]

    def test_a_relay_that_does_not_tell(self, tmp_path: Path) -> None:
        assert found(relay.check_file, running(tmp_path, os.getpid(), sound())) == []


class TestReadiness:
    def check(self, directory: Path, **journal: object) -> list[tuple[str, str]]:
        content = sound()
        content["journal"] |= journal
        content["ready"] = not journal.get("failure")
        return found(relay.check_readiness, running(directory, os.getpid(), content))

    def test_ready(self, tmp_path: Path) -> None:
        assert self.check(tmp_path) == [("ok", "the relay is ready")]

    def test_no_room(self, tmp_path: Path) -> None:
        told = [("wrong", "the log goes on in memory: No space left on device")]
        assert self.check(tmp_path, failure="No space left on device") == told

    def test_damage(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, damages=2)[1:] == [
            ("wrong", "2 places of the journal found damaged since the start")
        ]

    def test_syncs(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, sync_failures=1)[1:] == [("wrong", "1 sync to the disk failed")]

    def test_leaving(self, tmp_path: Path) -> None:
        content = sound() | {"ready": False, "journal": None}
        finding = only(relay.check_readiness, running(tmp_path, os.getpid(), content))
        assert finding.verdict == "wrong"


class TestLosses:
    def check(self, directory: Path, **counters: object) -> list[tuple[str, str]]:
        content = sound()
        content["counters"] |= counters
        return found(relay.check_losses, running(directory, os.getpid(), content))

    def test_none(self, tmp_path: Path) -> None:
        assert self.check(tmp_path) == [("ok", "nothing was dropped or missed since it started")]

    def test_dropped(self, tmp_path: Path) -> None:
        last = {"checksum": {"at": 0, "peer": "2 (unix)", "detail": "byte 5\x1b[2J"}}
        dropped = {"checksum": 3, "magic": 0}
        assert self.check(tmp_path, dropped=dropped, last_dropped=last) == [
            (
                "note",
                "3 messages dropped since it started, checksum, the last from 2 (unix): byte 5?[2J",
            )
        ]

    @pytest.mark.parametrize(
        ("reason", "mend"),
        [
            ("forbidden", "[[access]]"),
            ("control", "asked"),
            ("tlv", "--tlv-types"),
            ("magic", "mend"),
        ],
    )
    def test_what_to_do(self, tmp_path: Path, reason: str, mend: str) -> None:
        content = sound()
        content["counters"] |= {"dropped": {reason: 1}}
        assert mend in only(relay.check_losses, running(tmp_path, os.getpid(), content)).mend

    def test_missed(self, tmp_path: Path) -> None:
        told = [("note", "1 message missed by connected peers, overtaken")]
        assert self.check(tmp_path, missed={"overtaken": 1}) == told

    @pytest.mark.parametrize("counter", ["dropped", "missed"])
    def test_reasons_steer_no_terminal(self, tmp_path: Path, counter: str) -> None:
        ((_, what),) = self.check(tmp_path, **{counter: {"\x1b[2J": 1}})
        assert what.endswith(", ?[2J")


class TestRefusals:
    def check(self, directory: Path, refused: dict[str, int]) -> Finding:
        content = sound()
        content["counters"]["connections"] = {"refused": refused}
        return only(relay.check_refusals, running(directory, os.getpid(), content))

    def test_none(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, {"tls": 0}).verdict == "ok"

    @pytest.mark.parametrize(
        ("reason", "mend"),
        [
            ("forbidden", "[[access]]"),
            ("too_many_of_identity", "connections ="),
            ("timeout", "log"),
        ],
    )
    def test_some(self, tmp_path: Path, reason: str, mend: str) -> None:
        finding = self.check(tmp_path, {reason: 2, "tls": 0})
        assert finding.verdict == "note"
        assert finding.what == f"2 connections refused since it started, {reason}"
        assert mend in finding.mend

    def test_reasons_steer_no_terminal(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, {"\x1b[2J": 1}).what.endswith(", ?[2J")


class TestPeers:
    @pytest.mark.parametrize(
        ("state", "behind", "verdict"),
        [
            ("live", 0, "ok"),
            ("behind", 1 << 25, "ok"),
            ("behind", (1 << 25) + 1, "note"),
            ("muted", 0, "note"),
        ],
    )
    def test_slow_ones(self, tmp_path: Path, state: str, behind: int, verdict: str) -> None:
        content = sound()
        content["peers"][0] |= {"state": state, "bytes_behind": behind}
        finding = only(relay.check_peers, running(tmp_path, os.getpid(), content))
        assert finding.verdict == verdict
        assert finding.what.startswith("2 peers" if verdict == "ok" else "peer 1 (publisher) is ")

    def test_the_slowest_are_named(self, tmp_path: Path) -> None:
        content = sound()
        peer = content["peers"][0]
        content["peers"] = [peer | {"number": n, "bytes_behind": n << 26} for n in range(20)]
        told = found(relay.check_peers, running(tmp_path, os.getpid(), content))
        assert [what.split()[1] for _, what in told] == ["19", "18", "17", "16", "15"]


class TestVersion:
    def test_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        words = ["twistd", "-n", "signal-relay", "--hold", "2"]
        monkeypatch.setattr(system, "command_of", lambda _: words)
        finding = only(relay.check_version, running(tmp_path, os.getpid(), sound()))
        assert (finding.verdict, finding.what) == ("ok", "started with: --hold 2")

    def test_another(self, tmp_path: Path) -> None:
        one = running(tmp_path, os.getpid(), sound() | {"version": "0.0.9"})
        finding = only(relay.check_version, one)
        assert finding.what == f"the relay is 0.0.9, this command {__version__}"
        assert finding.verdict == "note"

    def test_words_of_a_process(self) -> None:
        assert system.command_of(os.getpid())[0] == sys.orig_argv[0]
