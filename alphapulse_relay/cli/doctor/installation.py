"""What is installed: versions, and whether the inner loop is compiled."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator

from alphapulse_relay import __version__
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.protocol_v2.native import SWITCH, load

COMPILED = ("alphapulse_relay.protocol_v2._scan", "alphapulse_relay.hub._fanout")
_COMPILE = "install a C compiler and Python's headers, then the relay again"


def check_versions(_subject: Subject) -> Iterator[Finding]:
    """Tell which versions there are."""
    twisted = importlib.metadata.version("twisted")
    yield ok(f"signal-relay {__version__}, Python {platform.python_version()}, Twisted {twisted}")


def check_build(subject: Subject) -> Iterator[Finding]:
    """Whether messages are forwarded by compiled code, as installed and as it runs."""
    try:
        missing = [name for name in COMPILED if load(name) is None]
    except ImportError as error:
        yield wrong(f"the compiled inner loop cannot be loaded: {error}", _COMPILE)
        return
    if not missing:
        yield ok("the inner loop is compiled")
    elif os.environ.get(SWITCH, "") not in {"", "0"}:
        yield note(f"the inner loop is pure Python: {SWITCH} is set", f"unset {SWITCH}")
    else:
        yield note("the inner loop is pure Python, a tenth as fast", _COMPILE)
    running = subject.answer.get("build") if isinstance(subject.answer, dict) else None
    if running == "pure Python" and not missing:
        yield note("the relay that runs is pure Python", f"restart it without {SWITCH}")
