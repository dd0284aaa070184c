"""What is published, seen through a real relay."""

import json
import os
import subprocess

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.main import cli
from alphapulse_relay.cli.tail import Filter
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.cli.conftest import COMMAND, PATIENCE, SAMPLES, process, read_until

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

    def test_admits(self):
        message = build_message(build_tlv(21, b""), source=20, sequence=1, timestamp=0)
        malformed = build_message(b"\x15", source=20, sequence=1, timestamp=0)
        everything = frozenset[int]()
        assert Filter(everything, everything).admits(malformed)
        assert Filter(everything, frozenset({20})).admits(malformed)
        assert Filter(frozenset({20, 21}), frozenset({20})).admits(message)
        assert not Filter(frozenset({21}), everything).admits(malformed)
        assert not Filter(frozenset({22}), frozenset({20})).admits(message)
        assert not Filter(frozenset({21}), frozenset({21})).admits(message)

    def test_legacy_writers_have_their_source_elsewhere(self):
        header = Header(2, 33, 0, 0, 1, 0, 0, 0)
        assert Filter(frozenset(), frozenset({33})).admits(header.pack())


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


class TestUsage:
    @pytest.mark.parametrize(
        "options", [["--raw", "--json"], ["--hex", "--raw"], ["--json", "--hex"]]
    )
    def test_one_form_at_a_time(self, options):
        assert CliRunner().invoke(cli, ["tail", *options]).exit_code == 2

    @pytest.mark.parametrize(
        "options", [["--type", "Nothing"], ["--source", "256"], ["--count", "0"]]
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
