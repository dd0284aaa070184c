"""Settings in effect, and whether a file is in order."""

import os
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from alphapulse_relay.cli.main import cli
from alphapulse_relay.option_table import OPTIONS
from alphapulse_relay.options import settings_from
from tests.cli.conftest import ROOT, run

SAMPLE = ROOT / "etc" / "signal-relay.toml"


def config(*arguments: str, **options: object) -> Result:
    return CliRunner().invoke(cli, ["config", *arguments], **options)


class TestShow:
    def test_where_each_comes_from(self, tmp_path: Path) -> None:
        file = tmp_path / "relay.toml"
        file.write_text('hold = 3\nsocket = "/run/x.sock"\ndomains = 7\n')
        environment = {"SIGNAL_RELAY_HOLD": "2", "SIGNAL_RELAY_CONFIG": str(file)}
        shown = config("--domains", "1,2", env=environment)
        assert (shown.exit_code, shown.stderr) == (0, "")
        lines = {line.split(" = ")[0]: line for line in shown.stdout.splitlines()}
        assert list(lines) == [option.name for option in OPTIONS]
        assert " ".join(lines["hold"].split()) == 'hold = "2" # from SIGNAL_RELAY_HOLD'
        assert lines["socket"].endswith(f"# from {file}")
        assert lines["domains"].endswith("# flag")
        assert lines["cpu"].endswith("# default")
        assert lines["journal"].startswith('journal = "/run/journal"')

    def test_is_a_file_with_the_same_settings(self, tmp_path: Path) -> None:
        flags = {"listen": ["tcp:1:interface=127.0.0.1", "unix:/x"], "allow-plaintext": "true"}
        arguments = ["--allow-plaintext", *(f"--listen={each}" for each in flags["listen"])]
        shown = config("--socket", '/tmp/"x"\\y', *arguments)
        (tmp_path / "relay.toml").write_text(shown.stdout)
        assert tomllib.loads(shown.stdout)["listen"] == flags["listen"]
        again = settings_from({"config": str(tmp_path / "relay.toml")}, {})
        assert again == settings_from({**flags, "socket": '/tmp/"x"\\y'}, {})

    def test_access_rules(self, tmp_path: Path) -> None:
        rules = (
            '[[access]]\nname = "desk"\nuid = [0, "root"]\nbytes-per-second = "10M"\n'
            "publish = {domains = [2], sources = [20, 21]}\n"
            '[[access]]\nname = "others"\npublish = false\n'
        )
        (tmp_path / "relay.toml").write_text(f"hold = 2\n{rules}")
        shown = config("--config", str(tmp_path / "relay.toml"))
        assert shown.exit_code == 0
        assert tomllib.loads(shown.stdout)["access"] == tomllib.loads(rules)["access"]

    def test_no_secret(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("a-token.of_sixteen~or-more\n")
        token.chmod(0o600)
        shown = config("--web-token-file", str(token))
        assert f'web-token-file = "{token}"' in shown.stdout
        assert "sixteen" not in shown.stdout

    def test_wrong_value(self) -> None:
        shown = config("--hold", "x")
        assert (shown.exit_code, shown.stdout) == (2, "")
        told = "--hold: 'x' is not a number of seconds, 0 or more"
        assert shown.stderr == f"signal-relay: {told}\n"


class TestCheck:
    def check(self, path: Path, content: str, *arguments: str, **options: object) -> Result:
        file = path / "relay.toml"
        file.write_text(content)
        return config("--check", str(file), *arguments, **options)

    def test_in_order(self, tmp_path: Path) -> None:
        shown = self.check(tmp_path, 'hold = 2\nlisten = ["tcp:0:interface=127.0.0.1"]\n')
        assert (shown.exit_code, shown.stderr) == (0, "")
        assert shown.stdout == f"{tmp_path}/relay.toml is in order\n"

    def test_the_sample(self) -> None:
        assert config("--check", str(SAMPLE)).exit_code == 0

    def test_all_that_is_wrong(self, tmp_path: Path) -> None:
        shown = self.check(tmp_path, 'hold = "x"\ndomains = 999\nlisten = ["tcp:1"]\n')
        assert (shown.exit_code, shown.stdout) == (78, "")
        lines = shown.stderr.splitlines()
        assert [line.split()[1] for line in lines] == ["--domains", "--hold", "--listen"]
        assert all(f"(from {tmp_path}/relay.toml)" in line for line in lines)

    def test_a_line_for_each(self, tmp_path: Path) -> None:
        content = (
            "hodl = 1\nhold = -4\nmax-peers = 0\nfsync = [1]\n"
            '[[access]]\nname = "a"\nuid = []\n[[access]]\nname = "b"\npublish = 3\n'
        )
        told = self.check(tmp_path, content).stderr
        for text in ("access]] 1", "access]] 2", "hodl", "--hold", "--max-peers", "--fsync"):
            assert told.count(text) == 1
        assert told.count("\n") == 6

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("hodl = 1", "unknown key 'hodl': did you mean hold?"),
            ("hold = ", "is not TOML"),
            ("hold = [1]", "is not a string or a number"),
        ],
    )
    def test_no_configuration(self, tmp_path: Path, content: str, told: str) -> None:
        shown = self.check(tmp_path, content)
        assert shown.exit_code == 78
        assert told in shown.stderr
        assert shown.stderr.count("\n") == 1

    def test_missing(self, tmp_path: Path) -> None:
        shown = config("--check", str(tmp_path / "none"))
        assert shown.exit_code == 78
        assert f"cannot read '{tmp_path}/none': No such file" in shown.stderr

    def test_the_environment_hides_nothing(self, tmp_path: Path) -> None:
        environment = {"SIGNAL_RELAY_HOLD": "2", "SIGNAL_RELAY_DOMAINS": "x"}
        shown = self.check(tmp_path, 'hold = "x"\n', env=environment)
        assert shown.stderr.count("\n") == 1
        assert "--hold" in shown.stderr

    def test_flags_count(self, tmp_path: Path) -> None:
        content = 'listen = ["tcp:0"]\n'
        assert self.check(tmp_path, content).exit_code == 78
        assert self.check(tmp_path, content, "--allow-plaintext").exit_code == 0


def test_closed_output() -> None:
    done = run("config", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (1, b"signal-relay: standard output is closed\n")
