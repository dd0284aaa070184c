"""The rooms' direction: who may import whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import alphapulse_relay

PACKAGE = Path(alphapulse_relay.__file__).parent
NAME = "alphapulse_relay"
ALLOWED = {
    "protocol_v2": {"protocol_v2"},
    "journal": {"protocol_v2", "small_files", "journal"},
    "hub": {"protocol_v2", "journal", "safe_path", "small_files", "hub"},
    "web": {"protocol_v2", "hub", "descriptors", "web"},
    "client": {"protocol_v2", "client", "pem"},
    "cli": {
        "protocol_v2",
        "journal",
        "client",
        "pem",
        "option_sources",
        "option_table",
        "options",
        "safe_path",
        "descriptors",
        "bridge",
        "cli",
    },
    "option_values": {"protocol_v2", "small_files"},
    "access_file": {"protocol_v2", "hub", "option_values"},
    "option_table": {"protocol_v2", "option_values"},
    "option_sources": {"hub", "option_table", "access_file", "small_files"},
    "command_line": {"option_sources", "option_table"},
    "options": {
        "protocol_v2",
        "journal",
        "hub",
        "option_values",
        "option_table",
        "option_sources",
        "command_line",
    },
    "bridge": {
        "protocol_v2",
        "client",
        "pem",
        "small_files",
        "option_values",
        "option_table",
        "option_sources",
        "command_line",
        "logs",
        "signals",
        "systemd",
        "web.pages",
        "web.probes",
        "bridge",
    },
    "reload": {"hub", "web", "logs", "option_sources", "option_table", "options"},
    "systemd": set(),
    "signals": set(),
    "logs": set(),
    "pem": {"small_files"},
    "small_files": set(),
    "tls": {"pem"},
    "safe_path": set(),
    "descriptors": set(),
    "unix_socket": {"hub", "safe_path"},
    "start": {"unix_socket"},
    "passed": set(),
    "listener": {"hub", "passed", "unix_socket"},
    "handover": {"hub", "listener", "passed", "unix_socket"},
}
"""What each room may import of the package, besides its version: rooms, or modules of one.

``service`` may import everything.
"""
WITH_TWISTED = {"client/reconnecting.py", "client/endpoint.py"}
"""Where a room that does without Twisted has a door to it."""
FORBIDDEN = {
    "protocol_v2": {"twisted", "click", "rich", "prometheus_client"},
    "journal": {"twisted", "click", "rich", "prometheus_client"},
    "hub": {"click", "rich", "prometheus_client"},
    "client": {"twisted", "click", "rich", "prometheus_client"},
    "web": {"click", "rich"},
    "bridge": {"click", "rich"},
    "safe_path": {"twisted", "click", "rich", "prometheus_client"},
    "descriptors": {"twisted", "click", "rich", "prometheus_client"},
    "pem": {"twisted", "click", "rich", "prometheus_client"},
    "tls": {"click", "rich", "prometheus_client"},
    "cli": {"twisted", "prometheus_client"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, allowed: str) -> bool:
    return f"{name}.".startswith(f"{allowed}.")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = room_of(path)
    if room in {"service", "__init__"}:
        return
    forbidden = FORBIDDEN.get(room, set())
    if path.relative_to(PACKAGE).as_posix() in WITH_TWISTED:
        forbidden = forbidden - {"twisted"}
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in forbidden, f"{room} imports {name}"
        if top == NAME and not rest.startswith("__version__"):
            assert any(is_within(rest, allowed) for allowed in ALLOWED[room]), f"{room}: {name}"


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(path) for path in MODULES} - {"service", "__init__"}
    assert rooms == set(ALLOWED)


def test_only_the_services_and_their_endpoints_lie_among_the_plugins() -> None:
    plugins = PACKAGE.parent / "twisted" / "plugins"
    if plugins.exists():  # not where the package is installed without its source
        names = {path.name for path in plugins.iterdir()} - {"dropin.cache", "__pycache__"}
        assert names == {
            "signal_relay_plugin.py",
            "signal_relay_bridge_plugin.py",
            "signal_relay_endpoints.py",
        }
