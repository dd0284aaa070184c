"""The relay's options as a command's, and settings that forgive what is wrong."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.relay_options import Flags, RelayCommand, forgiving_settings
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

    def test_file_whose_value_is_of_no_use(self, tmp_path: Path) -> None:
        config = tmp_path / "relay.toml"
        config.write_text("hold = [1]\nmax-peers = 7\n")
        settings, problems = forgiving_settings({"config": str(config)}, {})
        assert settings == settings_from({}, {})
        assert [each.status for each in problems] == [os.EX_CONFIG]

    @pytest.mark.parametrize("size", ["64M", "900M"])
    def test_what_does_not_fit_together(self, size: str) -> None:
        flags = {"max-message": size, "backlog": "1M", "journal-size": "1M"}
        settings, problems = forgiving_settings(flags, {})
        assert {each.option for each in problems} <= {"backlog", "journal-size"}
        assert problems
        assert settings.backlog == 64 << 20
