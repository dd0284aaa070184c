"""What is published, seen through a real relay."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.filters import Filter
from alphapulse_relay.cli.main import cli
from alphapulse_relay.cli.tail import Place
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.bookmark import (
    Bookmark,
    fingerprint,
    load_bookmark,
    save_bookmark,
)
from alphapulse_relay.protocol_v2.control import ErrorCode, Subscribe, build_error
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header
from tests.cli.conftest import COMMAND, PATIENCE, SAMPLES, process, read_until, run
from tests.client.scripted import Connection, ScriptedRelay
from tests.support import Relay, messages

MESSAGES = {"arbitrage.v2": 1000, "mixed.v2": 1000, "legacy.v2": 1005, "empty-payload.v2": 10}


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


@pytest.fixture(params=sorted(MESSAGES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class TestSamples:
    def test_raw_is_byte_for_byte_what_came(self, relay, name):
        done = relay.tail("--raw", "--count", str(MESSAGES[name]), send=name)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == sample(name)

    def test_one_line_a_message(self, relay, name):
        done = relay.tail("--count", str(MESSAGES[name]), send=name)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.count(b"\n") == MESSAGES[name]
        assert b"\x1b" not in done.stdout

    def test_json(self, relay, name):
        done = relay.tail("--json", "--count", str(MESSAGES[name]), send=name)
        documents = [json.loads(text) for text in done.stdout.splitlines()]
        headers = [Header(*(entry[key] for key in Header._fields)) for entry in documents]
        assert headers == [Header.unpack(message) for message in split(sample(name))]
        assert {entry["fault"] for entry in documents} == {None}


class TestFields:
    def test_of_an_arbitrage_signal(self, relay):
        done = relay.tail("--json", "--count", "1", send="arbitrage.v2")
        (tlv,) = json.loads(done.stdout)["tlvs"]
        assert (tlv["type"], tlv["name"]) == (21, "ArbitrageSignal")
        assert tlv["fields"]["expected_profit_usd_q8"] == "91.68024629"
        assert tlv["hex"] == f"0x{sample('arbitrage.v2')[34:204].hex()}"

    def test_of_a_type_of_the_users(self, relay, tmp_path):
        file = tmp_path / "own.toml"
        file.write_text('[21]\nname = "Mine"\nfields = [["first", "u16"]]\npadded_to = 170\n')
        done = relay.tail("-n", "1", "--type", "mine", "--layouts", str(file), send="arbitrage.v2")
        assert done.stdout.endswith(b" Mine first=21\n")

    def test_hex(self, relay):
        done = relay.tail("--hex", "-n", "1", send="arbitrage.v2")
        line, *dump = done.stdout.decode().splitlines()
        assert "ArbitrageSignal" in line
        assert dump[0].startswith("  00000000  ef be ad de 02 01 14 00 ")
        assert len(dump) == 13


class TestFilters:
    def types_and_sources(self, done: subprocess.CompletedProcess[bytes]) -> list[object]:
        documents = [json.loads(text) for text in done.stdout.splitlines()]
        return [({tlv["type"] for tlv in doc["tlvs"]}, doc["publisher"]) for doc in documents]

    def test_types(self, relay):
        done = relay.tail("--json", "--type", "21,SignalIdentity", "-n", "200", send="mixed.v2")
        found = self.types_and_sources(done)
        assert len(found) == 200
        assert all(types & {21, 22} for types, _ in found)

    def test_sources(self, relay):
        done = relay.tail("--json", "--source", "21", "--source", "41", "-n", "9", send="mixed.v2")
        assert {source for _, source in self.types_and_sources(done)} <= {21, 41}

    def test_raw_is_filtered_too(self, relay):
        wanted = [
            m for m in split(sample("mixed.v2")) if Filter(frozenset({24}), frozenset()).admits(m)
        ]
        done = relay.tail("--raw", "-t", "24", "-n", str(len(wanted)), send="mixed.v2")
        assert done.stdout == b"".join(wanted)


class TestLatency:
    def test_a_pipe_gets_a_message_before_the_next_comes(self, relay):
        with relay.consumer() as tail:
            for sequence in (b" seq=1 ", b" seq=2 "):
                relay.run("send", "--type", "22", "--count", sequence[5:6].decode())
                assert sequence in read_until(tail.stdout.fileno(), sequence)

    def test_a_reader_that_has_enough_ends_it_quietly(self, relay):
        with relay.consumer() as tail:
            tail.stdout.close()
            assert tail.wait(PATIENCE) == 0  # although no further message comes
            assert tail.stderr.read() == b""

    def test_a_reader_that_goes_while_messages_come(self, relay):
        with relay.consumer() as tail, process(["head", "-n", "2"], stdin=tail.stdout) as head:
            tail.stdout.close()
            relay.run("send", str(SAMPLES / "mixed.v2"))
            assert head.wait(PATIENCE) == 0
            assert tail.wait(PATIENCE) == 0
            assert tail.stderr.read() == b""


class TestEnd:
    def test_relay_leaves(self, start_relay):
        relay = start_relay()
        with relay.consumer() as tail:
            relay.stop()
            out, err = tail.communicate(timeout=PATIENCE)
        assert (tail.returncode, out) == (1, b"")
        assert err.startswith(b"signal-relay: the relay closed the connection: it is gone, or ")
        assert err.count(b"\n") == 1

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            (b"", "the relay closed the connection: it is gone, or this consumer did not keep up"),
            (b"HTTP/1.1", "what comes is not Protocol V2: magic at byte 0"),
            (bytes.fromhex("15030100020246"), "what listens there encrypts: name it with tls:HOST"),
            (
                build_error(ErrorCode.FORBIDDEN, "no messages", timestamp=1),
                "the relay says: no messages (error 8)",
            ),
            (
                build_error(ErrorCode.LEAVING, "connect again", timestamp=1),
                "the relay closed the connection: it leaves, and is as a rule back at once",
            ),
        ],
        ids=["nothing", "something else", "encrypts", "forbidden", "leaves"],
    )
    def test_what_is_told(self, short_path, said, told):
        def script(connection: Connection) -> None:
            assert connection.subscribe() == Subscribe()
            connection.send(said)

        path = short_path / "s"
        with ScriptedRelay(path, script):
            done = run("tail", "--socket", str(path))
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
        assert told in done.stderr.decode()

    def test_what_is_no_relay_of_this_kind(self, short_path):
        path, sent = short_path / "s", sample("arbitrage.v2")

        def script(connection: Connection) -> None:
            connection.subscribe()
            connection.send(sent)

        with ScriptedRelay(path, script):
            done = run("tail", "--raw", "--socket", str(path))
        assert (done.returncode, done.stdout) == (1, sent)

    def test_relay_refuses_and_tells_why(self, start_relay):
        done = start_relay(max_peers=0).run("tail")
        assert (done.returncode, done.stdout) == (1, b"")
        expected = b"signal-relay: the relay closed the connection: refused: too_many_peers\n"
        assert done.stderr == expected


class TestOutput:
    @pytest.mark.parametrize("options", [["--raw"], ["--json", "-n", "3"], ["-n", "3"]])
    def test_full_disk(self, relay, options):
        command = [*COMMAND, "tail", "--socket", relay.path, *options]
        with (
            open("/dev/full", "wb") as full,
            process(command, stdout=full, stderr=subprocess.PIPE) as tail,
        ):
            relay.wait_for(f"pid={tail.pid} ")
            relay.run("send", str(SAMPLES / "mixed.v2"))
            error = tail.communicate(timeout=PATIENCE)[1]
        assert error == b"signal-relay: cannot go on: No space left on device\n"
        assert tail.returncode == 1

    def test_closed(self, relay):
        done = relay.run("tail", preexec_fn=lambda: os.close(1))
        assert (done.returncode, done.stderr) == (1, b"signal-relay: standard output is closed\n")


PUBLISHED = messages(20, 10)


@pytest.fixture(scope="module")
def kept() -> Iterator[Relay]:
    """A relay with ten messages in its journal; nothing else is to be published there."""
    with Relay() as relay:
        relay.connect().send(b"".join(PUBLISHED))
        relay.wait_until(lambda status: status["counters"]["messages_received"] == 10)
        yield relay


class TestHistory:
    def tail(self, relay: Relay, *options: str) -> bytes:
        done = run("tail", "--socket", str(relay.socket), "--raw", *options)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    def test_last(self, kept):
        assert self.tail(kept, "--last", "3", "-n", "3") == b"".join(PUBLISHED[7:])

    def test_since(self, kept):
        assert self.tail(kept, "--since", "1h", "-n", "10") == b"".join(PUBLISHED)

    def test_the_relay_filters(self, kept):
        options = ["--type", "21", "--source", "20", "--last", "2", "-n", "1"]
        assert self.tail(kept, *options) == PUBLISHED[8]

    def test_goes_on_live(self):
        first, second = messages(20, 2)
        with Relay() as relay:
            publisher = relay.connect()
            publisher.send(first)
            relay.wait_until(lambda status: status["counters"]["messages_received"] == 1)
            with self.following(relay, "--last", "9") as tail:
                assert read_until(tail.stdout.fileno(), first) == first
                publisher.send(second)
                assert read_until(tail.stdout.fileno(), second) == second
                relay.stop()
                error = tail.communicate(timeout=PATIENCE)[1]
        assert tail.returncode == 1
        assert error.startswith(b"signal-relay: the relay closed the connection: ")

    def following(self, relay: Relay, *options: str):
        command = [*COMMAND, "tail", "--socket", str(relay.socket), "--raw", *options]
        return process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_bookmark_goes_on_exactly_where_it_stopped(self, kept, tmp_path):
        file = str(tmp_path / "mark")
        counts = (1, 2, 3, 4)
        options = ["--bookmark", file, "--last", "10"]
        parts = [self.tail(kept, *options, "-n", str(count)) for count in counts]
        assert [len(part) // 216 for part in parts] == [*counts]
        assert b"".join(parts) == b"".join(PUBLISHED)

    def test_new_bookmark_begins_live_and_is_there_before_any_message(self, tmp_path):
        file = tmp_path / "mark"
        with Relay() as relay:
            publisher = relay.connect()
            publisher.send(b"".join(PUBLISHED[:5]))
            relay.wait_until(lambda status: status["counters"]["messages_received"] == 5)
            with self.following(relay, "--bookmark", str(file)) as tail:
                relay.wait_for_log(f"peer connected: .* pid={tail.pid} ")
                relay.wait_until(lambda _: file.exists())
                tail.send_signal(signal.SIGINT)
                assert tail.communicate(timeout=PATIENCE) == (b"", b"")
            publisher.send(b"".join(PUBLISHED[5:]))
            relay.wait_until(lambda status: status["counters"]["messages_received"] == 10)
            rest = self.tail(relay, "--bookmark", str(file), "-n", "5")
        assert rest == b"".join(PUBLISHED[5:])

    def test_what_was_not_flushed_comes_again(self, kept, tmp_path):
        file = tmp_path / "mark"
        command = [*COMMAND, "tail", "-s", str(kept.socket), "--raw", "--bookmark", str(file)]
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*command, "--last", "4"], stdout=full, stderr=subprocess.PIPE, check=False
            )
        assert done.returncode == 1
        rest = self.tail(kept, "--bookmark", str(file), "--last", "4", "-n", "4")
        assert rest == b"".join(PUBLISHED[6:])

    def test_bookmark_of_another_journal(self, kept, tmp_path):
        file = tmp_path / "mark"
        bookmark = Bookmark(5, 0, 0, fingerprint(Subscribe()))
        save_bookmark(file, bookmark)
        done = run("tail", "--socket", str(kept.socket), "--bookmark", str(file))
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
        assert b"the relay says: the bookmark is of epoch 5, " in done.stderr
        advice = f": remove {file} to begin anew, or name another file\n"
        assert done.stderr.decode().endswith(advice)
        assert load_bookmark(file) == bookmark

    def test_bookmark_of_other_filters(self, kept, tmp_path):
        file = tmp_path / "mark"
        options = ["--bookmark", str(file), "--last", "10", "-n", "1"]
        assert self.tail(kept, *options, "--source", "20") == PUBLISHED[0]
        before = load_bookmark(file)
        done = run("tail", "--socket", str(kept.socket), *options, "--source", "20,21")
        told = f"signal-relay: {file} was kept with other --type or --source than these: "
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
        assert done.stderr.decode().startswith(told)
        assert load_bookmark(file) == before
        assert self.tail(kept, *options, "--source", "20") == PUBLISHED[1]

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe"])
    def test_file_that_is_no_bookmark(self, kept, tmp_path, content):
        file = tmp_path / "mark"
        file.write_bytes(content)
        done = run("tail", "--socket", str(kept.socket), "--bookmark", str(file))
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
        assert done.stderr.startswith(f"signal-relay: {file} is not a bookmark".encode())

    def test_bookmark_that_cannot_be_written(self, kept, tmp_path):
        file = tmp_path / "none" / "mark"
        done = run("tail", "--socket", str(kept.socket), "--bookmark", str(file))
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
        told = f"signal-relay: cannot write {file}: No such file or directory\n"
        assert done.stderr.decode() == told


class TestPlace:
    def test_saved_when_it_has_changed(self, tmp_path):
        file = tmp_path / "mark"
        place = Place(file)
        place.save()
        assert not file.exists()
        place.written = Bookmark(1, 2, 3, 4)
        place.save()
        assert load_bookmark(file) == Bookmark(1, 2, 3, 4)
        file.unlink()
        place.save()
        assert not file.exists()
        assert Place(file).written is None

    def test_without_a_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        place = Place(None)
        place.written = Bookmark(1, 2, 3, 4)
        place.save()
        assert list(tmp_path.iterdir()) == []

    def test_what_is_no_bookmark(self, tmp_path):
        (tmp_path / "mark").write_text("7")
        with pytest.raises(Failure, match="is not a bookmark: it holds '7'"):
            Place(tmp_path / "mark")


class TestUsage:
    def test_one_place_at_a_time(self):
        shown = CliRunner().invoke(cli, ["tail", "--since", "1h", "--last", "3"])
        assert shown.exit_code == 2

    @pytest.mark.parametrize(
        "options", [["--raw", "--json"], ["--hex", "--raw"], ["--json", "--hex"]]
    )
    def test_one_form_at_a_time(self, options):
        assert CliRunner().invoke(cli, ["tail", *options]).exit_code == 2

    @pytest.mark.parametrize(
        "options",
        [
            ["--type", "Nothing"],
            ["--source", "256"],
            ["--count", "0"],
            ["--last", "0"],
            ["--last", str(1 << 64)],
        ],
    )
    def test_wrong_values(self, options):
        shown = CliRunner().invoke(cli, ["tail", *options])
        assert shown.exit_code == 2
        assert options[0] in shown.stderr

    def test_raw_is_not_for_a_terminal(self, relay):
        controller, terminal = os.openpty()
        command = [*COMMAND, "tail", "--raw", "--socket", relay.path]
        with process(command, stdout=terminal, stderr=subprocess.PIPE) as tail:
            os.close(terminal)
            assert tail.wait(PATIENCE) == 2
            assert b"not for a terminal" in tail.stderr.read()
        os.close(controller)
