"""The bridge's settings: which source wins, what goes together, and which reactor it runs by."""

import os
import re
import socket
import subprocess
import sys
import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from alphapulse_relay import __version__
from alphapulse_relay.bridge import options
from alphapulse_relay.bridge.compression import When
from alphapulse_relay.bridge.option_table import BRIDGE
from alphapulse_relay.bridge.options import BridgeSettings, Options, settings_from
from alphapulse_relay.option_sources import OptionError
from alphapulse_relay.options import settings_from as relay_settings_from
from tests.authority import Authority
from tests.support import FOREGROUND, PATIENCE

SAMPLE = Path(__file__).parents[2] / "etc" / "signal-relay-bridge.toml"
NAMES = [option.name for option in BRIDGE.options]
REPEATED = {option.name for option in BRIDGE.options if option.repeat}
SWITCHES = {option.name for option in BRIDGE.options if option.switch}
FILES = {"password-file": "password", "token-file": "token"}
"""Options whose fields hold what is in their files."""

DEFAULTS = {
    "relay": "/tmp/alphapulse/signals.sock",
    "nats": ("nats://127.0.0.1:4222",),
    "name": "this-host",
    "stream": "SIGNALS",
    "subject": "signals",
    "create_stream": False,
    "replicas": 1,
    "max_bytes": 10 << 30,
    "max_age": 7 * 86400.0,
    "types": frozenset(),
    "sources": frozenset(),
    "take_types": frozenset(),
    "take_sources": frozenset(),
    "take_from": frozenset(),
    "split_by_type": False,
    "compress": When.AUTO,
    "state": Path("/tmp/alphapulse/bridge-this-host.state"),
    "web": "tcp:9751:interface=127.0.0.1",
    "nice": 10,
    "credentials": None,
    "user": None,
    "password": None,
    "token": None,
    "tls_ca": None,
    "tls_cert": None,
    "tls_key": None,
    "log_level": "info",
    "log_format": "text",
}
CREDENTIALS = ["a.creds", "b.creds", "c.creds"]
# For each option three texts that are not the default, and their values.
VALUES = {
    "relay": [("/a", "/a"), ("tcp:a:1", "tcp:a:1"), ("@relay", "@relay")],
    "nats": [(f"nats://{each}:1", (f"nats://{each}:1",)) for each in "abc"],
    "name": [(each, each) for each in "abc"],
    "stream": [(each, each) for each in "ABC"],
    "subject": [("a", "a"), ("a.b", "a.b"), ("c", "c")],
    "create-stream": [("true", True), ("1", True), ("true", True)],
    "replicas": [("2", 2), ("3", 3), ("5", 5)],
    "max-bytes": [("1G", 1 << 30), ("64M", 64 << 20), ("99999999", 99999999)],
    "max-age": [("none", None), ("36h", 36 * 3600.0), ("1.5", 1.5)],
    **{name: [("1-3", {1, 2, 3}), ("9", {9}), ("7,8", {7, 8})]
       for name in ("types", "sources", "take-types", "take-sources")},
    "take-from": [(each, {each}) for each in "abc"],
    "split-by-type": [("true", True), ("1", True), ("true", True)],
    "compress": [(each, When(each)) for each in ("always", "never", "always")],
    "state": [("/a", Path("/a")), ("/b c", Path("/b c")), ("/d.state", Path("/d.state"))],
    "web": [("none", None), ("tcp:0", "tcp:0"), ("unix:/w", "unix:/w")],
    "nice": [("0", 0), ("5", 5), ("19", 19)],
    "credentials": [(each, each) for each in CREDENTIALS],
    "user": [(each, each) for each in "abc"],
    "password-file": [(f"secret-{each}", each * 8) for each in "abc"],
    "token-file": [(f"secret-{each}", each * 8) for each in "abc"],
    "log-level": [("debug", "debug"), ("critical", "critical"), ("warn", "warn")],
    "log-format": [("json", "json"), ("json", "json"), ("json", "json")],
}  # fmt: skip
WITH = {
    "relay": {"state": "/state"},
    "replicas": {"create-stream": "true"},
    "max-bytes": {"create-stream": "true"},
    "max-age": {"create-stream": "true"},
    "user": {"password-file": "secret-a"},
    "password-file": {"user": "desk"},
}
"""What else is to be given with an option."""


def field(name: str) -> str:
    return FILES.get(name, name.replace("-", "_"))


def variable(name: str) -> str:
    return "SIGNAL_RELAY_BRIDGE_" + name.replace("-", "_").upper()


def toml(directory: Path, text: str) -> str:
    path = directory / "bridge.toml"
    path.write_text(text)
    return str(path)


def refused(flags: dict[str, str | list[str]]) -> str:
    """Return what is said of flags that do not go together."""
    with pytest.raises(OptionError) as wrong:
        settings_from(flags, {})
    assert wrong.value.status == 2
    return str(wrong.value)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the files that are named, and a host of which the name is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "this.host")
    for name in [name for name in os.environ if name.startswith("SIGNAL_RELAY_")]:
        monkeypatch.delenv(name)
    for each in "abc":
        write_secret(tmp_path / f"secret-{each}", each * 8 + "\n")
        write_secret(tmp_path / f"{each}.creds", "-----BEGIN NATS USER JWT-----\n")


def write_secret(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o600)


@pytest.fixture
def any_reactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own reactor is left as it is."""
    monkeypatch.setattr(options, "use_asyncio", lambda: None)


class TestSources:
    def test_defaults(self) -> None:
        assert asdict(settings_from({}, {})) == DEFAULTS

    def test_every_option_has_a_field_and_every_field_an_option(self) -> None:
        assert [each.name for each in fields(BridgeSettings)] == [field(name) for name in NAMES]

    @pytest.mark.parametrize("name", VALUES)
    def test_flag_beats_environment_beats_file_beats_default(
        self, tmp_path: Path, name: str
    ) -> None:
        (flag, by_flag), (env, by_env), (text, by_file) = VALUES[name]
        written = text if name in SWITCHES else f"['{text}']" if name in REPEATED else f"'{text}'"
        more = WITH.get(name, {})
        file = {"config": toml(tmp_path, f"{name} = {written}"), **more}
        flags = {name: [flag] if name in REPEATED else flag, **more}

        def value(flags: dict[str, str | list[str]], environ: dict[str, str]) -> object:
            found = getattr(settings_from(flags, environ), field(name))
            return found.name if name == "credentials" and found else found

        assert value({}, {}) == DEFAULTS[field(name)]
        assert value({**file}, {}) == by_file != DEFAULTS[field(name)]
        assert value({**file}, {variable(name): env}) == by_env
        assert value({**file, **flags}, {variable(name): env}) == by_flag

    @pytest.mark.parametrize("name", VALUES)
    @pytest.mark.usefixtures("any_reactor")
    def test_command_line(self, name: str) -> None:
        text, _ = VALUES[name][0]
        more = [f"--{each}={value}" for each, value in WITH.get(name, {}).items()]
        more = ["--create-stream" if "create-stream" in each else each for each in more]
        one = Options()
        one.parseOptions([f"--{name}" if name in SWITCHES else f"--{name}={text}", *more])
        given: dict[str, str | list[str]] = {name: [text] if name in REPEATED else text}
        assert one.settings == settings_from({**given, **WITH.get(name, {})}, {})

    def test_repeatable_ones(self, tmp_path: Path) -> None:
        config = toml(tmp_path, 'nats = ["nats://a", "tls://b"]\ntake-from = ["a", "b", "a"]')
        settings = settings_from({"config": config}, {})
        assert settings.nats == ("nats://a:4222", "tls://b:4222")
        assert settings.take_from == {"a", "b"}
        environ = {variable("take-from"): "c all", variable("nats"): " nats://c\tnats://d "}
        settings = settings_from({"config": config}, environ)
        assert settings.nats == ("nats://c:4222", "nats://d:4222")
        assert settings.take_from == frozenset()

    def test_neither_programs_variables_are_the_others(self, tmp_path: Path) -> None:
        of_bridge = {variable(name): texts[0][0] for name, texts in VALUES.items()}
        assert relay_settings_from({}, of_bridge) == relay_settings_from({}, {})
        of_relay = {"SIGNAL_RELAY_WEB": "none", "SIGNAL_RELAY_CONFIG": str(tmp_path / "none")}
        assert settings_from({}, of_relay) == settings_from({}, {})

    def test_there_are_no_access_rules(self, tmp_path: Path) -> None:
        config = toml(tmp_path, '[[access]]\nname = "all"\n')
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        known = ", ".join(NAMES)
        assert str(wrong.value) == f"--config: {config}: unknown key 'access': known are {known}"
        assert wrong.value.status == 78


class TestTogether:
    def test_the_relay_itself_is_not_taken_from(self) -> None:
        what = "--take-from: 'desk' is this relay itself, by --name"
        assert refused({"name": "desk", "take-from": ["other", "desk"]}) == what

    @pytest.mark.parametrize("name", ["replicas", "max-bytes", "max-age"])
    def test_only_a_stream_that_is_made_has(self, tmp_path: Path, name: str) -> None:
        text, _ = VALUES[name][0]
        what = "a stream that there is stays as it is: give --create-stream"
        assert refused({name: text}) == f"--{name}: {what}"
        config = toml(tmp_path, f'{name} = "{text}"')
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert str(wrong.value) == f"--{name} (from {config}): {what}"
        assert wrong.value.status == 78
        default = BRIDGE.by_name[name].default
        assert settings_from({name: default}, {}) == settings_from({}, {})

    @pytest.mark.parametrize("relay", ["@relay", "tcp:a:1", "tls:a:1"])
    def test_the_state_is_beside_a_path_only(self, relay: str) -> None:
        what = f"--state: there is no directory beside {relay!r}: give --state"
        assert refused({"relay": relay}) == what
        assert settings_from({"relay": relay, "state": "/x"}, {}).state == Path("/x")
        beside = settings_from({"relay": "/run/a/b.sock", "name": "desk"}, {}).state
        assert beside == Path("/run/a/bridge-desk.state")

    @pytest.mark.parametrize(
        ("flags", "what"),
        [
            ({"user": "a"}, "--user: a password is needed, too: give --password-file"),
            ({"password-file": "secret-a"}, "--password-file: whose that is must be known: give "
             "--user"),
            ({"user": "a", "password-file": "secret-a", "token-file": "secret-b"},
             "--token-file: --user is given already, and only one of them can count"),
            ({"credentials": "a.creds", "token-file": "secret-b"},
             "--token-file: --credentials is given already, and only one of them can count"),
            ({"credentials": "a.creds", "user": "a", "password-file": "secret-a"},
             "--user: --credentials is given already, and only one of them can count"),
        ],
    )  # fmt: skip
    def test_a_bridge_is_one_user(self, flags: dict[str, str | list[str]], what: str) -> None:
        assert refused(flags) == what

    def test_no_server(self, tmp_path: Path) -> None:
        config = toml(tmp_path, "nats = []")
        with pytest.raises(OptionError, match=r"^--nats .*: no server is named$") as wrong:
            settings_from({"config": config}, {})
        assert wrong.value.status == 78

    @pytest.mark.parametrize(
        "url", ["nats://desk:secret@a", "tls://secret@a:1", "nats://desk:sec@ret@a:x"]
    )
    def test_secrets_in_a_url_are_refused_and_not_shown(self, url: str) -> None:
        assert refused({"nats": ["nats://a", url]}) == (
            "--nats: there is a user or a token in a URL: give --user and --password-file, or "
            "--token-file"
        )

    def test_secrets_are_not_shown(self) -> None:
        by_user = settings_from({"user": "desk", "password-file": "secret-a"}, {})
        by_token = settings_from({"token-file": "secret-b"}, {})
        assert (by_user.password, by_token.token) == ("a" * 8, "b" * 8)
        assert "a" * 8 not in repr(by_user)
        assert "b" * 8 not in repr(by_token)


class TestCertificate:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, str | list[str]]:
        """The three options, with files that go together."""
        authority = Authority(tmp_path)
        own = authority.issue("bridge")
        return {
            "tls-ca": str(authority.file),
            "tls-cert": str(own.certificate),
            "tls-key": str(own.key),
        }

    def test_goes_with_its_key(self, files: dict[str, str | list[str]]) -> None:
        settings = settings_from(files, {})
        assert [str(settings.tls_ca), str(settings.tls_cert), str(settings.tls_key)] == [
            *files.values()
        ]
        cert, key = (dict(files) for _ in range(2))
        del cert["tls-key"], key["tls-cert"]
        assert refused(cert) == "--tls-cert: its key is needed, too: give --tls-key"
        assert refused(key) == "--tls-key: its certificate is needed, too: give --tls-cert"

    def test_needs_encryption(self, files: dict[str, str | list[str]]) -> None:
        del files["tls-ca"]
        what = "--tls-cert: nothing is encrypted: give a tls:// URL, or --tls-ca"
        assert refused(files) == what
        assert settings_from({**files, "nats": ["nats://a", "tls://b"]}, {}).tls_ca is None

    def test_is_refused_with_another_key(
        self, tmp_path: Path, files: dict[str, str | list[str]]
    ) -> None:
        other = Authority(tmp_path, "other").issue("else")
        files["tls-key"] = str(other.key)
        assert refused(files) == (
            f"--tls-cert: cannot be used with --tls-key: {other.key} is not the key of the first "
            f"certificate in {files['tls-cert']}"
        )


@pytest.mark.usefixtures("any_reactor")
class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["--streem", "A"], "option --streem not recognized"),
            (["now"], "unexpected argument 'now'"),
            (["--replicas", "6"], "--replicas: '6' is not a number from 1 to 5"),
            (["--user", "a"], "--user: a password is needed, too: give --password-file"),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
    ) -> None:
        with pytest.raises(SystemExit) as stop:
            Options().parseOptions(arguments)
        assert capsys.readouterr() == ("", f"signal-relay-bridge: {what}\n")
        assert stop.value.code == 2

    def test_what_is_wrong_in_the_file_has_a_status_of_its_own(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = toml(tmp_path, "stream = 1")
        with pytest.raises(SystemExit) as stop:
            Options().parseOptions(["--config", config])
        line = (
            f'signal-relay-bridge: --stream (from {config}): 1 is not a string, such as "SIGNALS"\n'
        )
        assert capsys.readouterr() == ("", line)
        assert stop.value.code == 78

    def test_help(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "1000")
        with pytest.raises(SystemExit) as stop:
            Options().parseOptions(["--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        for option in BRIDGE.options:
            name = option.name if option.switch else f"{option.name}="
            assert re.search(rf"--{name} +{re.escape(option.help)}\n", out)
        assert "SIGNAL_RELAY_BRIDGE_TAKE_FROM" in out

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            Options().parseOptions(["--version"])
        out = capsys.readouterr().out
        assert out.startswith(f"signal-relay-bridge {__version__} (Twisted ")


def test_shell_completion() -> None:
    code = "from alphapulse_relay.bridge.options import Options; Options().parseOptions()"
    command = [sys.executable, "-c", code, "--", "--_shell-completion", "zsh:2"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "'*--nats=[" in out
    assert '_files -g "*.sock"' in out


class TestSample:
    def test_every_line_is_a_comment_or_empty(self) -> None:
        assert tomllib.loads(SAMPLE.read_text()) == {}

    def test_uncommented_it_names_every_option_with_its_default(self, tmp_path: Path) -> None:
        text = re.sub(r"^#(?=[a-z])", "", SAMPLE.read_text(), flags=re.MULTILINE)
        assert list(tomllib.loads(text)) == NAMES
        assert asdict(settings_from({"config": toml(tmp_path, text)}, {})) == DEFAULTS


PLUGIN = """
from twisted.application.service import ServiceMaker

plugin = ServiceMaker("", "small_bridge", "", "small-bridge")
"""
SERVICE = """
import sys

from twisted.application.service import Service

from alphapulse_relay.bridge.options import Options


class SmallBridge(Service):
    def startService(self):
        import asyncio
        from twisted.internet import reactor

        async def leave():
            print("reactor:", type(reactor).__name__, options.settings.stream)
            reactor.stop()

        asyncio.get_event_loop().create_task(leave())


def makeService(its_options):
    global options
    options = its_options
    return SmallBridge()
"""


class TestReactor:
    """Of a real process: that of the tests has its own."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A directory with a plugin that has the bridge's options, and tells its reactor."""
        (tmp_path / "twisted" / "plugins").mkdir(parents=True)
        (tmp_path / "twisted" / "plugins" / "small_bridge_plugin.py").write_text(PLUGIN)
        (tmp_path / "small_bridge.py").write_text(SERVICE)
        return tmp_path

    def run(
        self, path: Path, *arguments: str, twistd: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *FOREGROUND, *twistd, "small-bridge", *arguments]
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": str(path)},
        )

    @pytest.mark.parametrize("twistd", [(), ("--reactor", "asyncio")])
    def test_is_that_of_asyncio(self, path: Path, twistd: tuple[str, ...]) -> None:
        ended = self.run(path, "--stream", "DESK", twistd=twistd)
        assert "reactor: AsyncioSelectorReactor DESK" in ended.stdout, ended
        assert ended.returncode == 0

    def test_another_one_is_refused(self, path: Path) -> None:
        ended = self.run(path, twistd=("--reactor", "poll"))
        assert (ended.returncode, ended.stdout, ended.stderr) == (
            2,
            "",
            "signal-relay-bridge: PollReactor is installed, and NATS needs the reactor of asyncio: "
            "leave out --reactor of twistd\n",
        )
