"""Publishing through a real relay."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.main import cli
from alphapulse_relay.cli.outgoing import Piece
from alphapulse_relay.cli.send import Account, Pace
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header
from tests.cli.conftest import COMMAND, PATIENCE, SAMPLES, process, read_until, run


def sample(name: str) -> str:
    return str(SAMPLES / name)


def first_messages(relay, count: int, *send: str, **options: object) -> bytes:
    """What a consumer gets while a command sends."""
    with relay.consumer("--raw", "--count", str(count)) as tail:
        done = relay.run("send", *send, **options)
        assert done.returncode == 0, done.stderr
        return tail.communicate(timeout=PATIENCE)[0]


class TestFiles:
    def test_file(self, relay):
        data = Path(sample("mixed.v2")).read_bytes()
        assert first_messages(relay, 1000, sample("mixed.v2")) == data

    def test_several(self, relay):
        files = [sample("legacy.v2"), sample("empty-payload.v2")]
        data = b"".join(Path(file).read_bytes() for file in files)
        assert first_messages(relay, 1015, *files) == data

    def test_standard_input(self, relay):
        data = Path(sample("arbitrage.v2")).read_bytes()
        assert first_messages(relay, 1000, "-", input=data) == data

    def test_paced(self, relay):
        data = Path(sample("arbitrage.v2")).read_bytes()
        assert first_messages(relay, 1000, sample("arbitrage.v2"), "--rate", "20000") == data

    def test_account(self, relay):
        done = relay.run("send", sample("arbitrage.v2"))
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr.startswith(b"signal-relay: sent 1000 messages, 204000 bytes in ")
        assert done.stderr.endswith(b" messages/s)\n")

    def test_what_tail_records_can_be_sent_again(self, relay, tmp_path):
        record = tmp_path / "record.v2"
        record.write_bytes(first_messages(relay, 1005, sample("legacy.v2")))
        assert first_messages(relay, 1005, str(record)) == record.read_bytes()

    def test_messages_that_are_dropped(self, relay):
        done = relay.run("send", sample("bad-checksum.v2"))
        account, error = done.stderr.decode().splitlines()
        assert done.returncode == 1
        assert account.startswith("signal-relay: wrote 21 messages")
        told = "signal-relay: the relay has dropped messages, first: checksum at byte 2096: "
        assert error.startswith(told)

    def test_torn_message_is_warned_of(self, relay):
        done = relay.run("send", sample("truncated.v2"))
        warning, account = done.stderr.decode().splitlines()
        assert done.returncode == 0
        assert warning.endswith("truncated.v2 ends inside a message, after 100 of 204 bytes")
        assert "sent 10 messages, 2140 bytes" in account

    def test_pipe_is_sent_as_it_comes(self, relay):
        data = Path(sample("arbitrage.v2")).read_bytes()
        command = [*COMMAND, "send", "-", "--socket", relay.path]
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        with relay.consumer("--raw", "-n", "2") as tail, process(command, **pipes) as send:
            for message in list(split(data))[:2]:
                send.stdin.write(message)
                send.stdin.flush()
                assert read_until(tail.stdout.fileno(), message) == message
            assert b"sent 2 messages" in send.communicate(timeout=PATIENCE)[1]


class TestError:
    @pytest.mark.parametrize("options", [[], ["--rate", "5000"]])
    @pytest.mark.parametrize("name", ["bad-magic.v2", "bad-size.v2"])
    def test_relay_tells_what_is_wrong(self, relay, name, options):
        done = relay.run("send", sample(name), *options)
        warning, account, error = done.stderr.decode().splitlines()
        reason = name[4:-3]
        assert done.returncode == 1
        assert f"does not frame from byte 2040 on, {reason}: " in warning
        assert "wrote 10 messages" in account
        assert error.startswith(f"signal-relay: the relay closed the connection: {reason} at byte")

    def test_relay_refuses(self, start_relay):
        done = start_relay(max_peers=0).run("send", sample("arbitrage.v2"))
        assert done.returncode == 1
        assert done.stderr.endswith(b"closed the connection: refused: too_many_peers\n")

    def test_relay_leaves_while_standard_input_is_waited_for(self, start_relay):
        relay = start_relay()
        command = [*COMMAND, "send", "-", "--socket", relay.path]
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        with process(command, **pipes) as send:
            relay.wait_for(f"pid={send.pid} ")
            relay.stop()
            assert send.wait(PATIENCE) == 1
            assert b"the relay closed the connection" in send.stderr.read()


class TestBuilt:
    def build(self, relay, count: int, *options: str) -> list[dict[str, object]]:
        with relay.consumer("--json", "--count", str(count)) as tail:
            done = relay.run("send", *options)
            assert done.returncode == 0, done.stderr
            lines = tail.communicate(timeout=PATIENCE)[0].splitlines()
        return [json.loads(line) for line in lines]

    def test_fields(self, relay):
        fields = ["--field", "net_profit_usd_q8=-12.5", "-f", "priority=7"]
        (document,) = self.build(relay, 1, "--type", "21", *fields)
        (tlv,) = document["tlvs"]
        assert tlv["name"] == "ArbitrageSignal"
        assert tlv["fields"]["net_profit_usd_q8"] == "-12.50000000"
        assert tlv["fields"]["priority"] == 7
        assert tlv["fields"]["signal_id"] == "0"
        assert (document["publisher"], document["sequence"]) == (20, 1)
        assert document["checksum"] != 0
        assert document["timestamp"] > 0

    def test_many(self, relay):
        options = ["--type", "signalidentity", "--source", "39", "--count", "50", "--rate", "10000"]
        documents = self.build(relay, 50, *options)
        assert [document["sequence"] for document in documents] == list(range(1, 51))
        assert {document["source"] for document in documents} == {39}

    def test_type_of_the_users(self, relay, tmp_path):
        file = tmp_path / "own.toml"
        file.write_text('[24]\nname = "Own"\nfields = [["level", "u8"]]\n')
        options = ["--type", "own", "-f", "level=9", "--layouts", str(file)]
        (document,) = self.build(relay, 1, *options)
        assert [tlv["hex"] for tlv in document["tlvs"]] == ["0x09"]

    @pytest.mark.parametrize("options", [["-n", "0"], ["--rate", "500"]])
    def test_until_interrupted(self, relay, options):
        command = [*COMMAND, "send", "-t", "22", *options, "-s", relay.path]
        with relay.consumer("--raw") as tail, process(command, stderr=subprocess.PIPE) as send:
            header = Header.unpack(os.read(tail.stdout.fileno(), 32))
            assert header.sequence == 1
            send.send_signal(signal.SIGINT)
            assert send.wait(PATIENCE) == 130
            account = send.stderr.read()
            assert account.startswith(b"signal-relay: sent ")
            assert account.count(b"\n") == 1


class TestUsage:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ([], "Either FILE"),
            (["--type", "21", sample("legacy.v2")], "Either FILE"),
            ([sample("legacy.v2"), "--count", "3"], "Either FILE"),
            ([sample("legacy.v2"), "--source", "0"], "Either FILE"),
            ([sample("legacy.v2"), "-f", "a=1"], "Either FILE"),
            (["--type", "24"], "the fields of type 24 are not known"),
            (["--type", "Nothing"], "neither a number"),
            (["--type", "22", "-f", "none=1"], "has no field 'none'"),
            (["--type", "22", "-f", "confidence"], "'confidence' is not NAME=VALUE"),
            (["--type", "22", "-f", "confidence=1", "-f", "confidence=2"], "given twice"),
            (["--type", "22", "-f", "confidence=256"], "an integer from 0 to 255"),
            *[
                (["--type", "22", "--count", "2", "--rate", rate], "'--rate': ")
                for rate in ("0", "-1", "1e-12", "1e-320", "nan", "inf")
            ],
            (["--type", "22", "--source", "256"], "--source"),
            (["/nothing/there.v2"], "No such file"),
        ],
    )
    def test_wrong(self, options, complaint):
        shown = CliRunner().invoke(cli, ["send", *options])
        assert shown.exit_code == 2
        assert complaint in " ".join(shown.stderr.split())


def test_turns_do_not_drift():
    waited: list[float] = []
    pace = Pace(8.0, waited.append)
    for _ in range(17):
        pace.turn()
    assert [moment - waited[0] for moment in waited] == pytest.approx([n / 8 for n in range(17)])


def test_account_of_nothing():
    assert str(Account()).startswith("sent 0 messages, 0 bytes in 0.00")


def test_account_of_one():
    account = Account()
    account.add(Piece(b"x", 1))
    assert str(account).startswith("sent 1 message, 1 byte in ")


def test_closed_standard_input_is_wrong_usage():
    done = run("send", "-", preexec_fn=lambda: os.close(0))
    assert done.returncode == 2
    assert b"standard input is closed" in done.stderr


@pytest.mark.parametrize("full", [True, False], ids=["full", "closed"])
def test_is_sent_although_standard_error_takes_nothing(relay, full):
    with Path("/dev/full").open("wb") as device:
        options = {"stdout": subprocess.PIPE, "stderr": device, "capture_output": False}
        if not full:
            options["preexec_fn"] = lambda: os.close(2)
        with relay.consumer("--raw", "--count", "1000") as tail:
            relay.run("send", sample("mixed.v2"), **options)
            data = tail.communicate(timeout=PATIENCE)[0]
    assert data == Path(sample("mixed.v2")).read_bytes()


def test_progress_bar_is_for_a_terminal(relay):
    controller, terminal = os.openpty()
    command = [*COMMAND, "send", sample("truncated.v2"), "--socket", relay.path]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with process(command, stderr=terminal, env=environment) as send:
        os.close(terminal)
        shown = read_until(controller, b" messages/s)").decode()
        assert send.wait(PATIENCE) == 0
    os.close(controller)
    assert "sending" in shown
    assert "2.1/2.1 kB" in shown
    assert "\n" in shown[: shown.index("sent 10 messages")]
