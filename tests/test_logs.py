"""The destination of the log is twistd's, its level and form are ours."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from enum import IntEnum, StrEnum
from pathlib import Path

import pytest
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    capturedLogs,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from alphapulse_relay import logs

LEVELS = ["debug", "info", "warn", "error", "critical"]
FOREGROUND = {"nodaemon": 1, "logfile": None, "syslog": 0, "logger": None}
ROOT = Path(logs.__file__).parent.parent


class Fault(StrEnum):
    CHECKSUM = "checksum"


class Number(IntEnum):
    TWO = 2


class Odd:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def event(message="hello {peer}", **kw):
    return {
        "log_time": 1_700_000_000.25,
        "log_level": LogLevel.info,
        "log_namespace": "relay",
        "log_format": message,
        "peer": "p1",
        **kw,
    }


def failure():
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        return Failure()


def record(**kw):
    line = logs.json_line(event(**kw))
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    return json.loads(line)


@pytest.fixture(autouse=True)
def sigusr1():
    """Restore the signal's handler."""
    handler = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, handler)


@pytest.fixture(autouse=True)
def log_files(monkeypatch):
    """Close the log files that a test opens; the relay has its own until it ends."""
    opened = []
    open_file = logs._log_file

    def open_and_remember(name):
        opened.append(open_file(name))
        return opened[-1]

    monkeypatch.setattr(logs, "_log_file", open_and_remember)
    yield
    for log_file in opened:
        log_file.close()


class TestJson:
    def test_the_whole_line(self):
        assert list(record(bytes=5).items()) == [
            ("time", "2023-11-14T22:13:20.250000Z"),
            ("level", "info"),
            ("logger", "relay"),
            ("message", "hello p1"),
            ("peer", "p1"),
            ("bytes", 5),
        ]

    def test_whole_seconds_have_the_same_form(self):
        assert record(log_time=0)["time"] == "1970-01-01T00:00:00.000000Z"

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            (None, None),
            (True, True),
            (1.5, 1.5),
            (-(1 << 63), -(1 << 63)),
            (Number.TWO, 2),
            (Fault.CHECKSUM, "checksum"),
            (b"\xffx", "\\xffx"),
            ("é\n", "é\n"),
            ("\udcff", "\udcff"),
            (float("nan"), "nan"),
            (float("inf"), "inf"),
            (Path("/x"), "/x"),
            ({"a": 1}, "{'a': 1}"),
        ],
    )
    def test_fields(self, value, written):
        assert record(field=value)["field"] == written

    @pytest.mark.parametrize("value", [Odd(), 10**5000, [Odd()], Odd], ids=lambda value: "odd")
    def test_no_value_is_too_odd(self, value):
        odd = record(field=value)
        assert isinstance(odd["field"], str)
        assert odd["message"] == "hello p1"

    @pytest.mark.parametrize("time", [None, "now", float("nan"), float("inf"), 1e300, Odd()])
    def test_no_time_is_too_odd(self, time):
        assert record(log_time=time)["time"] is None

    def test_a_message_that_cannot_be_formatted(self):
        assert "Unable to format event" in record(message="{nobody}")["message"]
        assert record(message="{field}", field=Odd())["message"]

    def test_a_message_of_several_lines_is_one_line(self):
        assert record(message="a\nb")["message"] == "a\nb"

    def test_failure(self):
        failed = record(log_failure=failure())
        assert failed["message"] == "hello p1"
        assert failed["traceback"].endswith("builtins.ValueError: bad\nthing\n")
        assert "test_logs.py" in failed["traceback"]

    def test_a_failure_without_a_message(self):
        assert record(message=None, log_failure=failure())["message"] == ""

    def test_an_odd_failure(self):
        assert record(log_failure="odd")["traceback"] == "odd"

    def test_what_names_our_fields_stays_out(self):
        assert record(time=1, message_=2, level="x", traceback="y")["time"].startswith("2023")
        assert record(level="x")["level"] == "info"

    def test_what_the_old_log_adds_stays_out(self):
        old = record(system="-", isError=0, format="%s", printed=1, why=None, time=1.0)
        assert list(old) == ["time", "level", "logger", "message", "peer"]

    def test_nothing_to_say(self):
        assert logs.json_line({"log_level": LogLevel.info, "log_format": ""}) is None
        assert logs.json_line({}) is None

    def test_an_event_with_a_message_only(self):
        assert json.loads(logs.json_line({"log_format": "x", 1: 2})) == {
            "time": None, "level": None, "logger": None, "message": "x", "1": 2,
        }  # fmt: skip


class TestText:
    @pytest.mark.parametrize("kw", [{}, {"log_failure": failure()}, {"message": "a\nb"}])
    def test_as_twisted_writes_it(self, kw):
        ours, theirs = io.StringIO(), io.StringIO()
        logs.FileLog("info", "text", ours)(event(**kw))
        textFileLogObserver(theirs)(event(**kw))
        assert ours.getvalue() == theirs.getvalue() != ""

    def test_what_the_file_cannot_write_is_escaped(self):
        out = io.BytesIO()
        ascii_file = io.TextIOWrapper(out, "ascii")
        logs.FileLog("info", "text", ascii_file)(event(peer="é\udcff"))
        assert out.getvalue().endswith(b"hello \\xe9\\udcff\n")

    def test_nothing_to_say(self):
        out = io.StringIO()
        logs.FileLog("info", "text", out)(event(message=None))
        assert out.getvalue() == ""


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("least", LEVELS)
def test_level(least, form):
    out = io.StringIO()
    log = Logger("relay", observer=logs.FileLog(least, form, out))
    for level in LEVELS:
        log.emit(LogLevel.levelWithName(level), "said {level}")
    assert out.getvalue().count("\n") == len(LEVELS) - LEVELS.index(least)


def test_another_level(tmp_path):
    out = io.StringIO()
    writes = logs.FileLog("info", "text", out)
    log = Logger("relay", observer=writes)
    for level in ("debug", "error", "info"):
        writes.set_level(level)
        for each in LEVELS:
            log.emit(LogLevel.levelWithName(each), "said {level}")
    assert out.getvalue().count("\n") == 5 + 2 + 4


class TestReopen:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "relay.log"

    @pytest.fixture
    def log(self, path):
        return logs.observer("info", "text", {**FOREGROUND, "logfile": str(path)})

    def test_a_file_that_was_moved_away(self, path, log):
        log(event(message="first"))
        path.rename(moved := path.with_name("moved"))
        assert log.reopen()
        log(event(message="second"))
        assert moved.read_text().endswith("first\n")
        assert path.read_text().endswith("second\n")

    def test_a_file_that_is_where_it_was(self, path, log):
        log(event(message="first"))
        log.reopen()
        log(event(message="second"))
        assert path.read_text().count("\n") == 2

    def test_where_there_can_be_none_the_old_one_stays(self, path, log):
        log(event(message="first"))
        path.rename(moved := path.with_name("moved"))
        path.mkdir()
        with capturedLogs() as told:
            assert not log.reopen()
        assert "the log stays in the file that is open" in formatEvent(told[0])
        log(event(message="second"))
        assert moved.read_text().count("\n") == 2

    def test_a_stream_has_no_other_file(self, capsys):
        log = logs.observer("info", "text", FOREGROUND)
        log.reopen()
        log(event())
        assert capsys.readouterr().out


class TestDestination:
    @pytest.mark.parametrize("logfile", [None, "", "-"])
    def test_stdout_in_the_foreground(self, capsys, logfile):
        observer = logs.observer("info", "json", {**FOREGROUND, "logfile": logfile})
        verifyObject(ILogObserver, observer)
        observer(event())
        assert json.loads(capsys.readouterr().out)["peer"] == "p1"
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL

    @pytest.mark.parametrize("nodaemon", [0, 1])
    def test_file(self, tmp_path, nodaemon):
        path = tmp_path / "relay.log"
        path.write_text("before\n")
        twistd = {**FOREGROUND, "nodaemon": nodaemon, "logfile": str(path)}
        logs.observer("info", "text", twistd)(event(peer="é"))
        assert path.read_text("utf-8").startswith("before\n")
        assert path.read_text("utf-8").endswith(" [relay#info] hello é\n")

    def test_default_file_of_a_daemon(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        logs.observer("info", "json", {"nodaemon": 0})(event())
        assert json.loads((tmp_path / "twistd.log").read_text())["peer"] == "p1"

    @pytest.mark.parametrize(
        "twistd",
        [
            {**FOREGROUND, "syslog": 1},
            {**FOREGROUND, "logger": lambda: None, "logfile": "never.log"},
            {"nodaemon": 0, "logfile": "-"},
        ],
    )
    def test_left_to_twistd(self, tmp_path, monkeypatch, twistd):
        monkeypatch.chdir(tmp_path)
        assert logs.observer("info", "json", twistd) is None
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_cannot_be_opened(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            logs.observer("info", "text", {**FOREGROUND, "logfile": str(tmp_path / "no" / "log")})

    def test_sigusr1_rotates(self, tmp_path, monkeypatch):
        calls = []
        path = tmp_path / "relay.log"
        observer = logs.observer("info", "text", {"logfile": str(path)})
        observer(event(message="first"))
        reactor = type("Reactor", (), {"callFromThread": calls.append})
        monkeypatch.setattr("twisted.internet.reactor", reactor, raising=False)
        os.kill(os.getpid(), signal.SIGUSR1)
        [rotate] = calls
        rotate()
        observer(event(message="second"))
        assert (tmp_path / "relay.log.1").read_text().endswith("first\n")
        assert path.read_text().endswith("second\n")

    def test_a_handler_of_somebody_else_is_kept(self, tmp_path):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        logs.observer("info", "text", {"logfile": str(tmp_path / "log")})
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN


PLUGIN = """
    from twisted.application.service import ServiceMaker

    scratch = ServiceMaker("scratch", "scratch_tap", "a service that logs and stops", "scratch")
"""
TAP = """
    from twisted.application.service import Service
    from twisted.logger import ILogObserver, Logger
    from twisted.python import usage

    from alphapulse_relay import logs


    class Options(usage.Options):
        optParameters = [["level", None, "info"], ["format", None, "json"]]


    class Top(Service):
        def __init__(self, options):
            self.options = options

        def setServiceParent(self, parent):
            o = self.options
            observer = logs.observer(o["level"], o["format"], o.parent)
            if observer is not None:
                parent.setComponent(ILogObserver, observer)
            super().setServiceParent(parent)

        def startService(self):
            from twisted.internet import reactor

            Logger().debug("at debug")
            Logger().info("at info to {peer}", peer="p1")
            print("printed")
            reactor.callWhenRunning(reactor.stop)


    def makeService(options):
        return Top(options)
"""


class TestUnderTwistd:
    """The real program, with a plugin that does what the relay's service does."""

    @pytest.fixture
    def twistd(self, tmp_path):
        plugins = tmp_path / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "scratch_plugin.py").write_text(textwrap.dedent(PLUGIN))
        (tmp_path / "scratch_tap.py").write_text(textwrap.dedent(TAP))

        def run(*arguments):
            program = "from twisted.scripts.twistd import run; run()"
            command = [sys.executable, "-c", program, *arguments]
            environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
            return subprocess.run(
                command, cwd=tmp_path, env=environ, check=True, capture_output=True, text=True
            )

        return run

    def test_stdout(self, twistd):
        done = twistd("-n", "scratch")
        records = [json.loads(line) for line in done.stdout.splitlines()]
        messages = [record["message"] for record in records]
        assert "at info to p1" in messages
        assert "printed" in messages
        assert "at debug" not in messages
        assert messages[0].startswith("twistd ")
        assert messages[-1] == "Server Shut Down."
        assert done.stderr == ""

    def test_level_and_file(self, twistd, tmp_path):
        done = twistd("-n", "--logfile", "x.log", "scratch", "--level", "debug", "--format=text")
        assert (done.stdout, done.stderr) == ("", "")
        text = (tmp_path / "x.log").read_text()
        assert "#debug] at debug\n" in text
        assert "#info] at info to p1\n" in text
        assert not (tmp_path / "twistd.log").exists()
