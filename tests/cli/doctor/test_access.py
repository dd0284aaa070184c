"""Access rules, and who can open the socket that they are about."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse_relay.cli.doctor.access import check_rules
from tests.cli.doctor.subjects import found, subject

OTHER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="opens a directory to other users")


@pytest.fixture
def directory(short_path: Path) -> Iterator[Path]:
    """A directory with a socket."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(short_path / "s.sock"))
        yield short_path


def check(directory: Path, rules: str, mode: int = 0o660, **flags: str) -> list[tuple[str, str]]:
    config = directory / "relay.toml"
    config.write_text(rules)
    (directory / "s.sock").chmod(mode)
    return found(check_rules, subject(directory, config=str(config), **flags))


def rule(name: str, who: str = "") -> str:
    return f"[[access]]\nname = {name!r}\n{who}\n"


def test_none(directory: Path) -> None:
    assert check(directory, "") == []


def test_for_everybody(directory: Path) -> None:
    assert check(directory, rule("all"))[0] == ("ok", "1 access rule")
    assert check(directory, rule("all"))[1][1].endswith("is let in by the rule all")


def test_for_nobody_here(directory: Path) -> None:
    verdict, what = check(directory, rule("desk", f"uid = [{OTHER}]"), 0o666)[-1]
    assert verdict == "note"
    assert what.startswith("no access rule is for ")


@pytest.mark.parametrize("who", [f"uid = [{os.geteuid()}]", f"gid = [{os.getegid()}]"])
def test_for_this_user(directory: Path, who: str) -> None:
    told = check(directory, rule("desk", who) + rule("all"))
    assert told[-1][1].endswith("is let in by the rule desk")


@as_root
class TestWhoCannotOpenIt:
    @pytest.fixture(autouse=True)
    def in_an_open_directory(self, directory: Path) -> None:
        directory.chmod(0o755)

    @pytest.mark.parametrize(
        ("mode", "verdict"), [(0o660, "note"), (0o666, "ok"), (0o662, "ok"), (0o606, "ok")]
    )
    def test_by_its_mode(self, directory: Path, mode: int, verdict: str) -> None:
        told = check(directory, rule("desk", f"uid = [0, {OTHER}]"), mode)[0]
        assert told[0] == verdict
        if verdict == "note":
            assert told[1] == (
                f"rule desk: user {OTHER} cannot open {directory}/s.sock (mode 660) as such"
            )

    def test_its_group(self, directory: Path) -> None:
        desk = rule("desk", f"gid = [{OTHER}]")
        assert check(directory, desk)[0][0] == "note"
        os.chown(directory / "s.sock", -1, OTHER)
        assert check(directory, desk)[0][0] == "ok"

    def test_its_owner(self, directory: Path) -> None:
        os.chown(directory / "s.sock", OTHER, -1)
        assert check(directory, rule("desk", f"uid = [{OTHER}]"))[0][0] == "ok"

    def test_by_its_directory(self, directory: Path) -> None:
        directory.chmod(0o700)
        assert check(directory, rule("desk", f"uid = [{OTHER}]"), 0o666)[0][0] == "note"


def test_a_rule_that_is_wrong(directory: Path) -> None:
    ((verdict, what),) = check(directory, rule("desk", "uid = []") + rule("all"))
    assert verdict == "note"
    assert what.endswith("one of them is wrong")


def test_an_abstract_name(directory: Path) -> None:
    told = check(directory, rule("desk", f"uid = [{OTHER}]"), socket="@x", journal="none")
    assert told[0] == ("ok", "1 access rule")
