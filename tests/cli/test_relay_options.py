"""The relay's options as a command's, and settings that forgive what is wrong."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.relay_options import RelayCommand, forgiving_settings
from alphapulse_relay.cli.table_command import Flags
from alphapulse_relay.option_table import OPTIONS
from alphapulse_relay.options import settings_from


def given(*arguments: str) -> Flags:
    """Return the flags that a command gets."""
    got: list[Flags] = []

    @click.command(cls=RelayCommand)
    @click.option("--json", "as_json", is_flag=True)
    def command(flags: Flags, as_json: bool) -> None:
        got.append(flags)

    shown = CliRunner().invoke(command, arguments)
    assert shown.exit_code == 0, shown.output
    return got[0]


class TestFlags:
    def test_none(self) -> None:
        assert given("--json") == {}

    def test_kinds(self) -> None:
        assert given("-s", "/x", "--allow-plaintext", "-l", "a", "--listen", "b", "--hold", "") == {
            "socket": "/x",
            "allow-plaintext": "true",
            "listen": ["a", "b"],
            "hold": "",
        }

    def test_config(self) -> None:
        assert given("--config", "x.toml") == {"config": "x.toml"}

    def test_help_has_all(self) -> None:
        @click.command(cls=RelayCommand)
        def command(flags: Flags) -> None:
            pass

        shown = CliRunner().invoke(command, ["--help"]).output
        assert all(f"--{option.name}" in shown for option in OPTIONS)


class TestForgiving:
    def test_nothing_is_wrong(self) -> None:
        settings, problems = forgiving_settings({"hold": "2"}, {"SIGNAL_RELAY_DOMAINS": "3"})
        assert (settings.hold, settings.domains, problems) == (2, {3}, [])

    def test_all_that_is_wrong(self) -> None:
        flags = {"hold": "x", "domains": "999", "listen": ["tcp:1"], "max-peers": "7"}
        settings, problems = forgiving_settings(flags, {"SIGNAL_RELAY_CPU": "many"})
        assert [each.option for each in problems] == ["domains", "hold", "cpu", "listen"]
        assert (settings.hold, settings.listen, settings.max_peers) == (1, (), 7)

    def test_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        flags = {"config": str(tmp_path / "none"), "hold": "3"}
        settings, problems = forgiving_settings(flags, {})
        assert settings.hold == 3
        assert [each.option for each in problems] == ["config"]

    def test_what_is_good_in_a_file_counts(self, tmp_path: Path) -> None:
        config = tmp_path / "relay.toml"
        config.write_text(
            'hold = [1]\nhodl = 2\nmax-peers = 0\nsocket-mode = "666"\nweb = "tcp:9786"\n'
            '[[access]]\nname = "desk"\nuid = ["nobody-has-this"]\n'
            '[[access]]\nname = "others"\n'
        )
        settings, problems = forgiving_settings({"config": str(config)}, {})
        assert (settings.socket_mode, settings.web) == (0o666, "tcp:9786")
        assert (settings.hold, settings.max_peers) == (1, 10_000)
        assert settings.access
        assert [rule.name for rule in settings.access.rules] == ["others"]
        assert [each.status for each in problems] == [os.EX_CONFIG] * 4
        told = ("[[access]] 1 (desk), uid", "--hold", "unknown key 'hodl'", "--max-peers")
        assert all(text in str(each) for text, each in zip(told, problems, strict=True))

    def test_rules_that_are_all_wrong_are_rules(self, tmp_path: Path) -> None:
        config = tmp_path / "relay.toml"
        config.write_text("[[access]]\nuid = [0]\n")
        settings, (problem,) = forgiving_settings({"config": str(config)}, {})
        assert settings.access
        assert settings.access.rules == ()
        assert problem.also == ("access",)

    @pytest.mark.parametrize("size", ["64M", "900M"])
    def test_what_does_not_fit_together(self, size: str) -> None:
        flags = {"max-message": size, "backlog": "1M", "journal-size": "1M"}
        settings, problems = forgiving_settings(flags, {})
        assert {each.option for each in problems} <= {"backlog", "journal-size"}
        assert problems
        assert settings.backlog == 64 << 20

    def test_what_does_not_fit_with_a_default_takes_nothing_else_along(self) -> None:
        flags = {"max-message": "900M", "hold": "3", "socket": "/run/x.sock"}
        settings, problems = forgiving_settings(flags, {"SIGNAL_RELAY_DOMAINS": "3"})
        assert settings == settings_from({"hold": "3", "socket": "/run/x.sock", "domains": "3"}, {})
        assert [each.option for each in problems] == ["backlog"]

    def test_an_abstract_socket_that_is_of_no_use(self) -> None:
        settings, problems = forgiving_settings({"socket": "@x", "hold": "3"}, {})
        assert settings == settings_from({"hold": "3"}, {})
        assert [each.option for each in problems] == ["socket"]
