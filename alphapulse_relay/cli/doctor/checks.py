"""The table of all checks, and how they are gone through."""

from collections.abc import Callable, Iterator

import click

from alphapulse_relay.cli.doctor import (
    access,
    clock,
    files,
    installation,
    journal,
    limits,
    relay,
    sockets,
)
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, Result, note
from alphapulse_relay.cli.words import printable

Check = Callable[[Subject], Iterator[Finding]]


CHECKS: tuple[tuple[str, Check], ...] = (
    ("settings", files.check_settings),
    ("config file", files.check_config),
    ("directory", sockets.check_directory),
    ("socket", sockets.check_socket),
    ("listener", sockets.check_listener),
    ("permission", sockets.check_permission),
    ("access", access.check_rules),
    ("side port", relay.check_side_port),
    ("readiness", relay.check_readiness),
    ("file in force", relay.check_file),
    ("losses", relay.check_losses),
    ("refusals", relay.check_refusals),
    ("peers", relay.check_peers),
    ("version", relay.check_version),
    ("open files", limits.check_descriptors),
    ("waiting", limits.check_waiting),
    ("buffers", limits.check_buffers),
    ("cores", limits.check_cores),
    ("journal", journal.check_directory),
    ("file system", journal.check_file_system),
    ("journal lock", journal.check_lock),
    ("journal content", journal.check_content),
    ("disk", journal.check_room),
    ("clock", clock.check_synchronised),
    ("clock steps", clock.check_steps),
    ("timestamps", clock.check_messages),
    ("token", files.check_token),
    ("certificates", files.check_certificates),
    ("installation", installation.check_versions),
    ("build", installation.check_build),
)


def examine(subject: Subject, checks: tuple[tuple[str, Check], ...] = CHECKS) -> Iterator[Result]:
    """Yield what all checks find. A check that cannot be made is a note, whatever it raises."""
    for name, check in checks:
        try:
            findings = list(check(subject))
        except Exception as error:  # what a machine lacks must not hide what the others find
            findings = [note(f"cannot be looked at: {_reason(error)}")]
        yield from (Result(name, finding) for finding in findings)


def _reason(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return printable(f"{type(error).__name__}: {error}")
