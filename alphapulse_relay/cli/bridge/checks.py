"""The table of all checks, how they are gone through, and those of this machine alone."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.bridge.option_table import BRIDGE
from alphapulse_relay.bridge.options import settings_from
from alphapulse_relay.bridge.state import State
from alphapulse_relay.cli.board import duration
from alphapulse_relay.cli.bridge import inward, nats, relay
from alphapulse_relay.cli.bridge.ends import Ends
from alphapulse_relay.cli.findings import Finding, Result, note, ok, wrong
from alphapulse_relay.cli.table_command import Flags
from alphapulse_relay.cli.words import Failure, printable
from alphapulse_relay.option_sources import OptionError, config_path

INSTALL = "pip install 'alphapulse-signal-relay[bridge]'"
_CLIENT = "nats-py"
"""The distribution that the package ``nats`` is of."""


def check_packages(ends: Ends) -> Iterator[Finding]:
    """Whether the client of NATS is installed."""
    if ends.missing:
        what = f"Python's package {ends.missing[0]} is missing: what is at NATS is not looked at"
        yield wrong(what, INSTALL)
    else:
        yield ok(f"the client of NATS is installed ({_CLIENT} {version(_CLIENT)})")


def check_state(ends: Ends) -> Iterator[Finding]:
    """Whether the state file can be used, and what it remembers."""
    path, file = ends.settings.state, ends.file
    if isinstance(file, Failure):
        yield wrong(file.message, "see to the file, or give another --state")
    elif not path.exists():
        yield note(
            f"there is no {path}: a first start, from which on messages cross, none of before",
            "if there was a bridge already, give the --state that it had",
        )
    elif not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        yield wrong(
            f"{path} cannot be replaced: its directory may not be written to",
            "give the bridge's user a directory of its own, or run this as that user",
        )
    else:
        age = duration(max(time.time() - file.saved, 0))
        yield ok(f"{path}, of {age} ago: {', '.join(_remembered(file.state))}")


def _remembered(state: State) -> Iterator[str]:
    if state.outward:
        yield f"outward up to position {Place.parse(state.outward).position}"
    if state.created:
        yield f"inward up to message {state.done}"
    elif not state.outward:
        yield "nothing has crossed yet"


CHECKS: tuple[tuple[str, Callable[[Ends], Iterator[Finding]]], ...] = (
    ("package", check_packages),
    ("state", check_state),
    ("relay", relay.check_relay),
    ("NATS", nats.check_servers),
    ("JetStream", nats.check_jetstream),
    ("stream", nats.check_stream),
    ("room", nats.check_room),
    ("name", nats.check_name),
    ("outward", relay.check_outward),
    ("relays", nats.check_relays),
    ("inward", inward.check_inward),
)


def examine(flags: Flags, environ: Mapping[str, str]) -> Iterator[Result]:
    """Yield what all checks find; without settings that a bridge would take there is one only."""
    try:
        ends = Ends(settings_from(flags, environ))
    except OptionError as error:
        what = f"a bridge would not start: {printable(str(error))}"
        yield Result("settings", wrong(what, "correct it: nothing else is looked at before"))
        return
    file = config_path(BRIDGE, flags, environ)
    where = f", and {file}" if file else ""
    yield Result("settings", ok(f"a bridge would take these options{where}"))
    for name, check in CHECKS:
        try:
            findings = list(check(ends))
        except Exception as error:  # what cannot be looked at must not hide what the others find
            what = f"cannot be looked at: {type(error).__name__}: {error}"
            findings = [note(printable(what))]
        yield from (Result(name, finding) for finding in findings)
