"""Which source of an option wins, what is accepted, and the one line that says what is not."""

import os
import re
import socket
import subprocess
import sys
import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from twisted.internet.endpoints import AdoptedStreamServerEndpoint

from alphapulse_relay import __version__, option_values
from alphapulse_relay.hub.storage import SEGMENTS
from alphapulse_relay.option_sources import OptionError
from alphapulse_relay.option_table import OPTIONS
from alphapulse_relay.options import (
    BACKLOG_SEGMENTS,
    Options,
    Settings,
    settings_from,
    settings_or_exit,
)
from alphapulse_relay.protocol_v2.framing import Level, Rules

CPU = str(min(os.sched_getaffinity(0)))
SAMPLE = Path(__file__).parent.parent / "etc" / "signal-relay.toml"

DEFAULTS = {
    "socket": Path("/tmp/alphapulse/signals.sock"),
    "socket_mode": 0o660,
    "listen": (),
    "takeover": False,
    "allow_plaintext": False,
    "web": "tcp:9750:interface=127.0.0.1",
    "web_origin": (),
    "web_token_file": None,
    "web_publish": False,
    "journal": Path("/tmp/alphapulse/journal"),
    "journal_size": 1 << 30,
    "journal_age": None,
    "fsync": 1.0,
    "validate": Level.CHECKSUM,
    "domains": frozenset({2}),
    "tlv_types": frozenset(range(20, 40)),
    "max_message": 1 << 20,
    "backlog": 64 << 20,
    "hold": 1.0,
    "drain": 5.0,
    "max_peers": 10000,
    "cpu": None,
    "log_level": "info",
    "log_format": "text",
    "access": None,
}

LOCAL = "tcp:1:interface=127.0.0.1"
TOKENS = {f"token-{each}": each * 16 for each in "abc"}
# For each option three texts that are not the default, and their values.
VALUES = {
    "socket": [("/a/b.sock", Path("/a/b.sock")), ("/c", Path("/c")), ("/d e", Path("/d e"))],
    "socket-mode": [("600", 0o600), ("0", 0), ("0777", 0o777)],
    "listen": [(LOCAL, (LOCAL,)), ("unix:/y", ("unix:/y",)), ("unix:/x", ("unix:/x",))],
    "takeover": [("true", True), ("1", True), ("true", True)],
    "allow-plaintext": [("true", True), ("1", True), ("true", True)],
    "web": [("none", None), ("tcp:0", "tcp:0"), ("unix:/w", "unix:/w")],
    "web-origin": [
        ("https://a.example", ("https://a.example",)),
        ("HTTP://B:80", ("http://b",)),
        ("http://[::1]:81", ("http://[::1]:81",)),
    ],
    "web-token-file": list(TOKENS.items()),
    "web-publish": [("true", True), ("1", True), ("true", True)],
    "journal": [("/j", Path("/j")), ("none", None), ("/k l", Path("/k l"))],
    "journal-size": [("64M", 64 << 20), ("2G", 2 << 30), ("99999999", 99999999)],
    "journal-age": [("90m", 5400.0), ("7d", 604800.0), ("1.5", 1.5)],
    "fsync": [("never", None), ("always", 0.0), ("0.25", 0.25)],
    "validate": [("framing", Level.FRAMING), ("strict", Level.STRICT), ("framing", "framing")],
    "domains": [("1,2", {1, 2}), ("0-3,5-255", set(range(256)) - {4}), ("7", {7})],
    "tlv-types": [("20-39,50", {*range(20, 40), 50}), ("1", {1}), ("1-2, 9", {1, 2, 9})],
    "max-message": [("32", 32), ("4K", 4096), ("2M", 2 << 20)],
    "backlog": [("1g", 1 << 30), ("2G", 2 << 30), ("99999999", 99999999)],
    "hold": [("0", 0.0), ("0.25", 0.25), ("1e3", 1000.0)],
    "drain": [("0", 0.0), ("30", 30.0), ("0.5", 0.5)],
    "max-peers": [("1", 1), ("20", 20), ("007", 7)],
    "cpu": [(CPU, int(CPU)), (CPU, int(CPU)), (CPU, int(CPU))],
    "log-level": [("debug", "debug"), ("critical", "critical"), ("warn", "warn")],
    "log-format": [("json", "json"), ("json", "json"), ("json", "json")],
}
NAMES = [option.name for option in OPTIONS]
REPEATED = {option.name for option in OPTIONS if option.repeat}
SWITCHES = {option.name for option in OPTIONS if option.switch}


def field(name: str) -> str:
    return name.replace("-", "_")


def variable(name: str) -> str:
    return "SIGNAL_RELAY_" + field(name).upper()


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "relay.toml"
    path.write_text(text)
    return str(path)


def toml_value(name: str, text: str) -> str:
    if name in SWITCHES:
        return text
    return f'["{text}"]' if name in REPEATED else f'"{text}"'


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SIGNAL_RELAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def tokens(tmp_path, monkeypatch):
    """Have files with tokens where the process is."""
    monkeypatch.chdir(tmp_path)
    for name, token in TOKENS.items():
        write_token(tmp_path / name, f"{token}\n")


def write_token(path: Path, content: str, mode: int = 0o600) -> None:
    path.write_text(content)
    path.chmod(mode)


class TestSources:
    def test_defaults(self):
        assert asdict(settings_from({}, {})) == DEFAULTS

    def test_every_option_has_a_field_and_every_field_an_option(self):
        names = [field(name) for name in NAMES]
        assert [field.name for field in fields(Settings)] == [*names, "access"]

    @pytest.mark.parametrize("name", NAMES)
    def test_flag_beats_environment_beats_file_beats_default(self, tmp_path, name):
        (flag, by_flag), (env, by_env), (text, by_file) = VALUES[name]
        flags = {name: [flag] if name in REPEATED else flag}
        token = 'web-token-file = "token-a"\n' if name == "web-publish" else ""
        file = {"config": toml(tmp_path, f"{token}{name} = {toml_value(name, text)}")}
        environ = {variable(name): env}

        def value(flags, environ):
            return getattr(settings_from(flags, environ), field(name))

        assert value({}, {}) == DEFAULTS[field(name)]
        assert value(file, {}) == by_file != DEFAULTS[field(name)]
        assert value(file, environ) == by_env
        assert value({**file, **flags}, environ) == by_flag

    @pytest.mark.parametrize("name", NAMES)
    def test_command_line(self, name):
        options = Options()
        if name == "web-publish":
            options.parseOptions(["--web-token-file", "token-a", "--web-publish"])
        elif name in SWITCHES:
            options.parseOptions([f"--{name}"])
        else:
            options.parseOptions([f"--{name}", VALUES[name][0][0]])
        assert getattr(options.settings, field(name)) == VALUES[name][0][1]

    @pytest.mark.parametrize(
        ("flag", "name", "text"),
        [("-s", "socket", "/x"), ("-w", "web", "none"), ("-l", "listen", LOCAL)],
    )
    def test_short_flags(self, flag, name, text):
        short, long = Options(), Options()
        short.parseOptions([flag, text])
        long.parseOptions([f"--{name}={text}"])
        assert short.settings == long.settings != settings_from({}, {})

    @pytest.mark.parametrize("text", ["0", "false"])
    def test_a_switch_in_the_environment_and_none_on_the_command_line(self, text, monkeypatch):
        monkeypatch.setenv("SIGNAL_RELAY_WEB_PUBLISH", text)
        options = Options()
        options.parseOptions([])
        assert options.settings.web_publish is False
        assert options.flags == {}

    def test_a_switch_on_the_command_line_wins(self, monkeypatch):
        monkeypatch.setenv("SIGNAL_RELAY_WEB_PUBLISH", "false")
        options = Options()
        options.parseOptions(["--web-publish", "--web-token-file=token-b"])
        assert options.settings.web_publish is True
        assert options.flags == {"web-publish": "true", "web-token-file": "token-b"}

    def test_origins_are_repeatable(self):
        options = Options()
        options.parseOptions(["--web-origin", "http://a", "--web-origin=http://b:8080"])
        assert options.settings.web_origin == ("http://a", "http://b:8080")
        environ = {"SIGNAL_RELAY_WEB_ORIGIN": "http://a https://b:443"}
        assert settings_from({}, environ).web_origin == ("http://a", "https://b")

    def test_listen_is_repeatable_and_the_winner_takes_all(self, tmp_path):
        config = toml(tmp_path, 'listen = ["unix:/1", "unix:/2"]')
        environ = {"SIGNAL_RELAY_LISTEN": " unix:/3\tunix:/4 "}
        options = Options()
        options.parseOptions(["-l", "unix:/5", "--listen", "unix:/6", "--config", config])
        assert options.settings.listen == ("unix:/5", "unix:/6")
        assert options.flags == {"listen": ["unix:/5", "unix:/6"], "config": config}
        assert settings_from({"config": config}, environ).listen == ("unix:/3", "unix:/4")
        assert settings_from({"config": config}, {}).listen == ("unix:/1", "unix:/2")

    def test_config_file_is_named_by_flag_or_environment(self, tmp_path):
        config = toml(tmp_path, "hold = 7")
        environ = {"SIGNAL_RELAY_CONFIG": config}
        assert settings_from({}, environ).hold == 7
        assert settings_from({"config": "none"}, environ).hold == 1

    def test_options_read_the_environment(self, monkeypatch):
        monkeypatch.setenv("SIGNAL_RELAY_HOLD", "5")
        options = Options()
        options.parseOptions([])
        assert options.settings.hold == 5

    def test_empty_and_foreign_variables_are_ignored(self):
        environ = {"SIGNAL_RELAY_CPU": "", "SIGNAL_RELAY_PORT": "tcp://10.0.0.1:80"}
        assert settings_from({}, environ) == settings_from({}, {})

    def test_a_wrong_value_that_is_overruled_does_no_harm(self, tmp_path):
        config = toml(tmp_path, 'hold = "soon"')
        assert settings_from({"config": config, "hold": "2"}, {}).hold == 2

    @pytest.mark.parametrize(
        ("line", "name", "value"),
        [
            ("max-message = 4096", "max_message", 4096),
            ("hold = 0.5", "hold", 0.5),
            ("hold = 2", "hold", 2.0),
            ("max-peers = 5", "max_peers", 5),
            (f"cpu = {CPU}", "cpu", int(CPU)),
            ("domains = 3", "domains", {3}),
        ],
    )
    def test_numbers_in_the_file(self, tmp_path, line, name, value):
        assert getattr(settings_from({"config": toml(tmp_path, line)}, {}), name) == value

    def test_a_relative_path_is_of_the_directory_at_the_start(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert settings_from({"socket": "a.sock"}, {}).socket == tmp_path / "a.sock"

    def test_a_journal_too_small_for_the_largest_message(self):
        assert settings_from({"journal-size": "12M"}, {}).journal_size == 12 << 20
        for more in ({"journal-size": "11M"}, {"journal-size": "12M", "max-message": "2M"}):
            with pytest.raises(OptionError, match=r"--journal-size: 1[12]M is too small for"):
                settings_from(more, {})
        assert settings_from({"journal-size": "1M", "journal": "none"}, {}).journal is None

    def test_the_journal_is_beside_the_socket(self):
        assert settings_from({"socket": "/run/a/b.sock"}, {}).journal == Path("/run/a/journal")
        flags = {"socket": "/run/a/b.sock", "journal": "/j"}
        assert settings_from(flags, {}).journal == Path("/j")

    def test_rules(self):
        flags = {"validate": "strict", "domains": "1", "tlv-types": "9", "max-message": "64"}
        rules = Rules(Level.STRICT, frozenset({1}), frozenset({9}), 64, aside=True)
        assert settings_from(flags, {}).rules == rules
        assert settings_from({}, {}).rules == Rules(aside=True)


class TestPlaintext:
    @pytest.mark.parametrize(
        "endpoint",
        [
            LOCAL,
            "tcp:1:127.1.2.3",
            "tcp:port=1:interface=localhost",
            "tcp6:1:interface=\\:\\:1",
            "tcp:1:interface=\\:\\:1",
            "unix:/x",
        ],
    )
    def test_is_taken_where_only_this_machine_can_come(self, endpoint):
        assert settings_from({"listen": [endpoint]}, {}).listen == (endpoint,)

    @pytest.mark.parametrize(
        "endpoint",
        [
            "tcp:1",
            "tcp:1:interface=0.0.0.0",
            "tcp:1:interface=10.0.0.1",
            "tcp:1:interface=localhost.example",
            "tcp6:1",
            "tcp6:1:interface=\\:\\:ffff\\:127.0.0.1",
            f"haproxy:{LOCAL}",
            "stdio:",
        ],
    )
    def test_is_refused_elsewhere_unless_allowed(self, tmp_path, endpoint):
        flags = {"listen": [LOCAL, endpoint]}
        what = (
            f"{endpoint!r} is neither encrypted nor bound to loopback: use mtls:, add "
            "interface=127.0.0.1, or give --allow-plaintext"
        )
        with pytest.raises(OptionError) as wrong:
            settings_from(flags, {})
        assert (str(wrong.value), wrong.value.status) == (f"--listen: {what}", 2)
        config = toml(tmp_path, f"listen = ['{endpoint}']")
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert (str(wrong.value), wrong.value.status) == (f"--listen (from {config}): {what}", 78)
        allowed = settings_from({**flags, "allow-plaintext": "true"}, {})
        assert allowed.listen == (LOCAL, endpoint)

    @pytest.fixture(autouse=True)
    def nothing_looked_at(self):
        looked = option_values.is_exposed
        looked.cache_clear()
        yield
        looked.cache_clear()

    @pytest.mark.parametrize(
        ("family", "address", "exposed"),
        [
            (socket.AF_INET, ("127.0.0.1", 0), False),
            (socket.AF_INET, ("0.0.0.0", 0), True),
            (socket.AF_UNIX, "passed-in", False),
        ],
    )
    def test_of_a_socket_that_is_passed_in(self, monkeypatch, family, address, exposed):
        with socket.socket(family) as passed_in:
            passed_in.bind(address)
            found = AdoptedStreamServerEndpoint(object(), passed_in.fileno(), family)
            monkeypatch.setattr(option_values, "serverFromString", lambda *_: found)
            assert option_values.is_exposed("systemd:name=x") is exposed
            assert passed_in.getsockname()
        assert option_values.is_exposed("systemd:name=x") is exposed, "by now it is closed"

    def test_what_was_passed_in_and_is_closed_is_supposed_to_be(self, monkeypatch):
        with socket.socket() as closed:
            found = AdoptedStreamServerEndpoint(object(), closed.fileno(), socket.AF_INET)
        monkeypatch.setattr(option_values, "serverFromString", lambda *_: found)
        assert option_values.is_exposed("systemd:name=x")

    def test_is_looked_at_once_even_if_all_is_allowed(self, monkeypatch):
        """By the next time, at SIGHUP, what was passed in is closed."""
        looked: list[str] = []
        monkeypatch.setattr(option_values, "is_exposed", looked.append)
        settings_from({"listen": ["tcp:1"], "allow-plaintext": "true"}, {})
        assert looked == ["tcp:1"]


ENDPOINT = "is not a Twisted server endpoint such as tcp:9750"
WRONG = [
    ("socket", "", "is not a path of printable characters"),
    ("socket", "a\nb", "is not a path of printable characters"),
    *[("socket-mode", text, "is not an octal mode from 0 to 777, such as 660")
      for text in ("", "888", "1777", "-1", "rw", "0o660")],
    ("listen", "", f"{ENDPOINT}: Unknown endpoint type: ''"),
    ("listen", "none", f"{ENDPOINT}: Unknown endpoint type: 'none'"),
    ("listen", "\x1b[2j:1", f"{ENDPOINT}: Unknown endpoint type: '\\x1b[2j'"),
    ("listen", "mtls:1:certKey=/\x07é:privateKey=/\x07é:clientCA=/none",
     "cannot be used: certKey, privateKey: /\\x07é cannot be read: No such file or directory"),
    ("listen", "tcp:x", f"{ENDPOINT}: invalid literal for int() with base 10: 'x'"),
    ("listen", "tcp:65536", f"{ENDPOINT}: a port is a number from 0 to 65535"),
    ("listen", "mtls:65536:certKey=/none",
     f"{ENDPOINT}: missing 2 required keyword-only arguments: 'privateKey' and 'clientCA'"),
    ("listen", "mtls:1:certKey=/none:privateKey=/none:clientCA=/none",
     "cannot be used: certKey, privateKey: /none cannot be read: No such file or directory"),
    ("listen", "tcp6:port=-1", f"{ENDPOINT}: a port is a number from 0 to 65535"),
    ("listen", "tcp:1:a=b", f"{ENDPOINT}: got an unexpected keyword argument 'a'"),
    ("listen", "ssl:1:privateKey=/none",
     "cannot be used: [Errno 2] No such file or directory: '/none'"),
    ("web", "systemd:domain=UNIX:name=x",
     f"{ENDPOINT}: a part is missing, or systemd has passed no such socket"),
    ("web", "tcp", f"{ENDPOINT}: missing 1 required positional argument: 'port'"),
    *[("web-origin", text, "is not an origin such as https://desk.example:8443: no path, no *")
      for text in ("", "desk.example", "https://", "https://a/", "https://a/b", "https://*",
                   "https://a:0", "https://a:65536", "https://a:", "https://u@a", "null", "//a")],
    ("web-token-file", "", "is not a path of printable characters"),
    ("web-token-file", "nothing", "cannot be read: No such file or directory"),
    ("web-token-file", ".", "cannot be read: Is a directory"),
    ("validate", "none", "is not one of framing, checksum, strict"),
    *[("domains", text, "is not a list of numbers and ranges from 0 to 255, such as 20-39,50")
      for text in ("", ",", "1,", "256", "-1", "2-1", "1-256", "signal", "1;2", "٣")],
    ("domains", "0-4", "contains 4, which is kept for control messages"),
    ("tlv-types", "20-", "is not a list of numbers and ranges from 0 to 255, such as 20-39,50"),
    ("max-message", "31", "is less than the 32 bytes of a message's header"),
    *[("max-message", text, "is not a size in bytes, or with K, M or G, such as 64M")
      for text in ("", "M", "-1", "1.5M", "1T", "1 M", "1MB", "9" * 16)],
    ("backlog", "much", "is not a size in bytes, or with K, M or G, such as 64M"),
    *[("hold", text, "is not a number of seconds, 0 or more")
      for text in ("soon", "", "-1", "nan", "inf", "1e999", "1s")],
    *[("max-peers", text, "is not a whole number, 1 or more")
      for text in ("0", "-1", "", "many", "1.5", "9" * 5000)],
    ("journal", "", "is not a path of printable characters"),
    ("journal-size", "1GB", "is not a size in bytes, or with K, M or G, such as 64M"),
    *[("journal-age", text, "is not a time such as 90m, 36h or 7d, nor none")
      for text in ("", "0", "0d", "-1", "1w", "1h30m", "soon")],
    *[("fsync", text, "is not never, always, or a number of seconds")
      for text in ("", "-1", "often", "nan", "1s")],
    ("log-level", "INFO", "is not one of debug, info, warn, error, critical"),
    ("log-format", "xml", "is not one of text, json"),
]  # fmt: skip


def shown(text: str) -> str:
    """What is told of a value: its beginning, where it is long."""
    return repr(text if len(text) <= 80 else f"{text[:40]}…")


class TestWrongValues:
    @pytest.mark.parametrize(("name", "text", "what"), WRONG)
    def test_flag(self, capsys, name, text, what):
        with pytest.raises(SystemExit) as stop:
            Options().parseOptions([f"--{name}", text])
        assert capsys.readouterr() == ("", f"signal-relay: --{name}: {shown(text)} {what}\n")
        assert stop.value.code == 2

    @pytest.mark.parametrize(("name", "text", "what"), [case for case in WRONG if case[1].strip()])
    def test_environment(self, capsys, name, text, what):
        with pytest.raises(SystemExit) as stop:
            settings_or_exit({}, {variable(name): text})
        line = f"signal-relay: --{name} (from {variable(name)}): {shown(text)} {what}\n"
        assert capsys.readouterr() == ("", line)
        assert stop.value.code == 2

    @pytest.mark.parametrize(("name", "text", "what"), WRONG)
    def test_file(self, tmp_path, name, text, what):
        escaped = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
        config = toml(tmp_path, f"{name} = {toml_value(name, escaped)}")
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert str(wrong.value) == f"--{name} (from {config}): {shown(text)} {what}"
        assert wrong.value.status == 78

    def test_cpu_names_what_is_available(self, monkeypatch):
        monkeypatch.setattr(option_values, "CORES", {0, 1, 2, 5, 7, 8})
        for text in ("3", "-1", "all", ""):
            with pytest.raises(OptionError) as wrong:
                settings_from({"cpu": text}, {})
            what = "is not a core that is available here (0-2,5,7-8), nor none"
            assert str(wrong.value) == f"--cpu: {shown(text)} {what}"
        assert settings_from({"cpu": "none"}, {}).cpu is None

    def test_cpu_is_one_that_was_available_before_the_relay_pinned_itself(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set())
        assert settings_from({"cpu": CPU}, {}).cpu == int(CPU)

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["--hodl"], "option --hodl not recognized"),
            (["-x"], "option -x not recognized"),
            (["--hold"], "option --hold requires argument"),
            (["--web-publish=1"], "option --web-publish must not have an argument"),
            (["--hold", "1", "now"], "unexpected argument 'now'"),
            (["a\nb"], r"unexpected argument 'a\nb'"),
        ],
    )
    def test_command_line(self, capsys, arguments, what):
        with pytest.raises(SystemExit) as stop:
            Options().parseOptions(arguments)
        assert capsys.readouterr() == ("", f"signal-relay: {what}\n")
        assert stop.value.code == 2


class TestToken:
    WHAT = "does not hold one token: 16 to 1024 characters of A-Z a-z 0-9 . _ ~ -"

    @pytest.mark.parametrize(
        "content",
        ["", "a" * 15, "a" * 1025, "a" * 16 + " b", "a" * 15 + "+", "a" * 15 + "ä"],
    )
    def test_wrong_content(self, tmp_path, content):
        write_token(tmp_path / "wrong", content)
        with pytest.raises(OptionError) as wrong:
            settings_from({"web-token-file": "wrong"}, {})
        assert str(wrong.value) == f"--web-token-file: 'wrong' {self.WHAT}"
        assert wrong.value.status == 2

    def test_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        write_token(tmp_path / "long", "a" * 2049)
        for path, reason in (("pipe", "Not a regular file"), ("long", "More than 2048 bytes")):
            with pytest.raises(OptionError) as wrong:
                settings_from({"web-token-file": path}, {})
            assert str(wrong.value) == f"--web-token-file: {path!r} cannot be read: {reason}"

    @pytest.mark.parametrize("content", ["a" * 1024 + "\n", "  AZaz09._~-AZaz09\r\n"])
    def test_right_content(self, tmp_path, content):
        write_token(tmp_path / "right", content)
        assert settings_from({"web-token-file": "right"}, {}).web_token_file == content.strip()

    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
    def test_others_may_not_have_it(self, tmp_path, mode):
        write_token(tmp_path / "open", "a" * 16, mode)
        with pytest.raises(OptionError) as wrong:
            settings_from({"web-token-file": "open"}, {})
        what = f"is open to others than its owner and group (mode {mode:o}): chmod 640"
        assert str(wrong.value) == f"--web-token-file: 'open' {what}"

    @pytest.mark.parametrize("mode", [0o640, 0o400, 0o600])
    def test_owner_and_group_may(self, tmp_path, mode):
        write_token(tmp_path / "kept", "a" * 16, mode)
        assert settings_from({"web-token-file": "kept"}, {}).web_token_file == "a" * 16

    def test_is_not_shown(self):
        settings = settings_from({"web-token-file": "token-a"}, {})
        assert TOKENS["token-a"] not in repr(settings)

    def test_who_publishes_needs_one(self, tmp_path):
        with pytest.raises(OptionError) as wrong:
            settings_from({"web-publish": "true"}, {})
        what = "a token is needed to publish: give --web-token-file"
        assert str(wrong.value) == f"--web-publish: {what}"
        assert wrong.value.status == 2
        config = toml(tmp_path, "web-publish = true")
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert str(wrong.value) == f"--web-publish (from {config}): {what}"
        assert wrong.value.status == 78

    @pytest.mark.parametrize("text", ["yes", "True", "2"])
    def test_a_switch_is_true_or_false(self, text):
        with pytest.raises(OptionError) as wrong:
            settings_from({}, {"SIGNAL_RELAY_WEB_PUBLISH": text})
        origin = "(from SIGNAL_RELAY_WEB_PUBLISH)"
        what = f"--web-publish {origin}: {text!r} is not one of 1, true, 0, false"
        assert str(wrong.value) == what


class TestBacklog:
    """It has room for eight of the largest message, each with 128 KiB beside it."""

    def test_the_least(self):
        assert settings_from({"backlog": "9M"}, {}).backlog == 9 << 20
        with pytest.raises(OptionError) as wrong:
            settings_from({"backlog": str((9 << 20) - 1)}, {})
        assert str(wrong.value) == (
            "--backlog: 9437183 is too small for --max-message 1M (default): at least 9M is "
            "needed, 8 x (max-message + 128K)"
        )
        assert wrong.value.status == 2

    def test_a_large_message_makes_the_default_too_small(self):
        with pytest.raises(OptionError) as wrong:
            settings_from({"max-message": "100M"}, {})
        assert str(wrong.value).startswith("--backlog (default): 64M is too small for ")
        assert "--max-message 100M:" in str(wrong.value)
        assert wrong.value.status == 2

    def test_from_the_file(self, tmp_path):
        config = toml(tmp_path, "max-message = 8388608")
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert f"--max-message 8388608 (from {config}): at least 65M is" in str(wrong.value)
        assert wrong.value.status == 78

    def test_the_log_has_as_many_segments(self):
        assert BACKLOG_SEGMENTS == SEGMENTS


class TestHelp:
    def test_names_every_option_with_its_default(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "1000")
        with pytest.raises(SystemExit) as stop:
            Options().parseOptions(["--help"])
        assert stop.value.code == 0
        out, err = capsys.readouterr()
        for option in OPTIONS:
            name = option.name if option.switch else f"{option.name}="
            line = rf"--{name} +{re.escape(option.meaning)} \[default: (.+)\]\n"
            assert re.search(line, out)[1] == (option.default or "none")
        assert "--config=" in out
        assert "SIGNAL_RELAY_MAX_PEERS" in out
        assert err == ""

    def test_version(self, capsys):
        with pytest.raises(SystemExit) as stop:
            Options().parseOptions(["--version"])
        assert stop.value.code == 0
        assert capsys.readouterr().out.startswith(f"signal-relay {__version__} (Twisted ")

    def test_shell_completion(self):
        code = "from alphapulse_relay.options import Options; Options().parseOptions()"
        command = [sys.executable, "-c", code, "--", "--_shell-completion", "zsh:2"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert ":validate:(framing checksum strict)'" in out
        assert "'*--listen=[" in out
        assert '_files -g "*.toml"' in out

    def test_importing_it_chooses_no_reactor(self):
        code = (
            "import sys; from alphapulse_relay.options import Options; Options().parseOptions([]);"
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestSample:
    def test_every_line_is_a_comment_or_empty(self):
        assert tomllib.loads(SAMPLE.read_text()) == {}

    def test_uncommented_it_names_every_option_with_its_default(self, tmp_path):
        text = re.sub(r"^#(?=[a-z])", "", SAMPLE.read_text(), flags=re.MULTILINE)
        assert list(tomllib.loads(text)) == NAMES
        assert asdict(settings_from({"config": toml(tmp_path, text)}, {})) == DEFAULTS


@pytest.mark.parametrize("size", [1, 31, 1 << 10, 1536, 9 << 20, 1 << 30, 5 << 30])
def test_sizes_are_written_as_they_are_read(size):
    assert option_values.size(option_values.size_text(size)) == size


class TestAbstractSocket:
    """``--socket @name``: no file, so no permissions."""

    NOTHING = '[[access]]\nname = "all"\n'
    BY_UID = '[[access]]\nname = "us"\nuid = [0]\n'

    def settings(self, directory: Path, rules: str, **flags: str) -> Settings:
        config = directory / "relay.toml"
        config.write_text(rules)
        return settings_from({"socket": "@relay", "config": str(config), **flags}, {})

    @pytest.mark.parametrize("rules", ["", NOTHING])
    def test_needs_rules_by_uid(self, tmp_path: Path, rules: str) -> None:
        with pytest.raises(OptionError) as raised:
            self.settings(tmp_path, rules, journal="none")
        assert str(raised.value) == (
            "--socket: '@relay' is an abstract socket, which every user of this machine can "
            "connect to: give [[access]] rules by uid in the file, or a path"
        )
        assert raised.value.status == 2

    def test_needs_a_journal_or_none(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError) as raised:
            self.settings(tmp_path, self.BY_UID)
        assert str(raised.value) == (
            "--journal: there is no directory beside '@relay': give --journal, or none"
        )
        assert self.settings(tmp_path, self.BY_UID, journal="none").socket == Path("@relay")

    @pytest.mark.parametrize("name", ["@", "@a/b", "@a\tb"])
    def test_is_no_name(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(OptionError, match="is not an abstract name"):
            self.settings(tmp_path, self.BY_UID, journal="none", socket=name)

    def test_is_never_one_more_listener(self) -> None:
        with pytest.raises(OptionError, match="an abstract name can only be a --socket"):
            settings_from({"listen": ["unix:\0relay"]}, {})
