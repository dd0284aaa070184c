"""What all tests share: how many examples a property gets, and what runs on one build only."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from alphapulse_relay.protocol_v2.native import SWITCH

settings.register_profile("signal-relay", deadline=None, max_examples=200, derandomize=False)
settings.load_profile("signal-relay")

PROCESSES = "runs commands: what they have of compiled parts is tested in protocol_v2 and client"
ONE_BUILD = {
    "bridge": "joins relays: what it has of compiled parts is tested in protocol_v2 and client",
    "browser": "looks at the page: what a relay serves is tested in web",
    "test_benchmarks.py": "measures both builds by itself",
    "test_etc.py": "asks Prometheus: what a relay shows is tested in web and hub",
    "test_etc_units.py": "asks systemd, logrotate: how a relay starts is tested in test_process",
    "test_install.py": "installs with a compiler and without",
    "cli/bench/test_command.py": PROCESSES,
    "cli/bridge": "looks at both ends of a bridge",
    "cli/replay/test_command.py": PROCESSES,
    "cli/test_completion.py": PROCESSES,
    "cli/test_main.py": PROCESSES,
    "cli/test_send.py": PROCESSES,
    "cli/test_snapshot.py": "reads JSON",
    "cli/test_status.py": "reads JSON",
    "cli/test_tail.py": PROCESSES,
}
"""Tests whose outcome cannot depend on the build, and why. All others run on both builds."""

# Who is started in the background by a shell ignores SIGINT, and so would all that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def is_left_out(config: pytest.Config) -> bool:
    """Whether this is the whole suite's second run: what somebody asks for is always run."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    return whole and os.environ.get(SWITCH, "") not in {"", "0"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    name = collection_path.relative_to(Path(__file__).parent).as_posix()
    return True if name in ONE_BUILD and is_left_out(config) else None


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not is_left_out(config):
        return []
    left_out = [f"  tests/{name}: {reason}" for name, reason in ONE_BUILD.items()]
    return ["left out, since one run of the two is enough:", *left_out]


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length: all processes must name a test alike, and some hold the time."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
