"""The files that the options name: the configuration, the token, certificates and keys."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.endpoints import parts_of
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.cli.words import printable

EXPIRES_SOON = timedelta(days=30)
"""Before that a new certificate should be at hand."""
_CERTIFICATES = ("certKey", "clientCA", "extraCertChain")
_OTHERS_READ = stat.S_IROTH | stat.S_IWOTH


def check_settings(subject: Subject) -> Iterator[Finding]:
    """Whether a relay would take the options."""
    for problem in subject.problems:
        if _is_forbidden(problem):
            yield note(printable(str(problem)), "run doctor as the relay's user")
        else:
            yield wrong(
                printable(str(problem)), "correct it; signal-relay config --check FILE tells"
            )
    if not subject.problems:
        yield ok("a relay would take these options")


def _is_forbidden(error: BaseException | None) -> bool:
    """Tell whether it is only this user who may not read what the relay may."""
    while error is not None and not isinstance(error, PermissionError):
        error = error.__cause__
    return error is not None


def check_config(subject: Subject) -> Iterator[Finding]:
    """Whether others can change the configuration."""
    if subject.config is None:
        return
    path, status = subject.config, subject.config.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in {0, os.geteuid(), subject.uid}:
        owner = system.user_name(status.st_uid)
        yield wrong(
            f"{path} belongs to {owner}, who can change what the relay does", f"chown root {path}"
        )
    elif mode & stat.S_IWOTH:
        yield wrong(f"{path}: every user can change it (mode {mode:o})", f"chmod o-w {path}")
    elif mode & stat.S_IWGRP:
        yield note(f"{path}: the group {system.group_name(status.st_gid)} can change it")
    else:
        yield ok(f"{path}: mode {mode:o}")


def check_token(subject: Subject) -> Iterator[Finding]:
    """Whether the token is kept from others."""
    text = subject.texts.get("web-token-file", "none")
    if text != "none":
        yield from _secret(Path(str(text)))


def check_certificates(subject: Subject) -> Iterator[Finding]:
    """Whether certificates are valid, and stay so for a while, and keys are kept from others."""
    endpoints = [*subject.texts.get("listen", []), str(subject.texts.get("web", ""))]
    found = [parts_of(endpoint) for endpoint in endpoints]
    tls = [named for plain, named in found if plain and plain[0] in {"mtls", "ssl"}]
    for path in sorted({each[name] for each in tls for name in _CERTIFICATES if name in each}):
        yield from _valid(Path(path))
    for path in sorted({each["privateKey"] for each in tls if "privateKey" in each}):
        yield from _secret(Path(path))
    for path in sorted({each["crl"] for each in tls if "crl" in each}):
        yield from _current(Path(path))


def _secret(path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS_READ:
        yield wrong(f"{path} is open to every user (mode {mode:o})", f"chmod 640 {path}")
    else:
        yield ok(f"{path}: mode {mode:o}")


def _valid(path: Path) -> Iterator[Finding]:
    from alphapulse_relay.pem import read_certificates  # noqa: PLC0415 - slow to load

    for each in read_certificates(path):
        name = f"{path}, {printable(each.subject.rfc4514_string())}"
        if each.not_valid_before_utc > datetime.now(UTC):
            yield wrong(f"{name}: not valid before {each.not_valid_before_utc:%Y-%m-%d}", _RENEW)
        else:
            yield from _until(name, each.not_valid_after_utc)


def _current(path: Path) -> Iterator[Finding]:
    from alphapulse_relay.pem import read_crls  # noqa: PLC0415 - slow to load

    for each in read_crls(path):
        if each.next_update_utc is not None:
            yield from _until(
                f"{path}, revoked of {printable(each.issuer.rfc4514_string())}",
                each.next_update_utc,
            )


_RENEW = "put a new one in its place, then SIGHUP"


def _until(name: str, end: datetime) -> Iterator[Finding]:
    left = end - datetime.now(UTC)
    if left <= timedelta():
        yield wrong(f"{name}: expired on {end:%Y-%m-%d}", _RENEW)
    elif left < EXPIRES_SOON:
        yield note(f"{name}: expires on {end:%Y-%m-%d}, in {left.days} days", _RENEW)
    else:
        yield ok(f"{name}: valid until {end:%Y-%m-%d}")
