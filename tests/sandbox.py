"""Runs a command under what a systemd unit forbids its service, without systemd as process 1.

``python sandbox.py UNIT COMMAND...`` applies the seccomp filters that systemd makes of
``SystemCallFilter=``, ``RestrictAddressFamilies=`` and ``MemoryDenyWriteExecute=``
(systemd.exec(5)), by libseccomp, which systemd itself is linked with. What is denied fails with
EPERM.
"""

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

LIBRARY = "libseccomp.so.2"
_ALLOW = 0x7FFF0000
_DENY = 0x00050000 | errno.EPERM
_EQUAL, _MASKED_EQUAL = 4, 7
_PROT_WRITE, _PROT_EXEC, _SHM_EXEC = 2, 4, 0o100000
_EXECUTABLE = (
    ("mmap", 2, _PROT_WRITE | _PROT_EXEC),
    ("mprotect", 2, _PROT_EXEC),
    ("pkey_mprotect", 2, _PROT_EXEC),
    ("shmat", 2, _SHM_EXEC),
)
"""What ``MemoryDenyWriteExecute=`` denies: a call, the number of an argument, and bits in it."""


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp`` (seccomp_rule_add(3))."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def is_available() -> bool:
    """Whether the library is installed."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


class Filter:
    """A seccomp filter: ``default`` is what becomes of a call without a rule."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, call: str, *comparisons: _Comparison) -> None:
        """Add a rule; a call that this machine does not know is left out."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        array = (_Comparison * len(comparisons))(*comparisons)
        added = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        if added:
            raise OSError(-added, os.strerror(-added), call)

    def load(self) -> None:
        """Apply it, for ever, with no_new_privs (seccomp_load(3))."""
        if failed := self._library.seccomp_load(self._context):
            raise OSError(-failed, os.strerror(-failed))


def settings(unit: str, name: str) -> list[str]:
    """Return the values of a unit's setting, in order."""
    return re.findall(rf"^{name}=(.*)$", unit, re.M)


def allowed_calls(filters: Iterable[str]) -> set[str]:
    """Return the system calls that values of ``SystemCallFilter=`` leave."""
    allowed = members(["@default"])
    for value in filters:
        if value.startswith("~"):
            allowed -= members(value[1:].split())
        else:
            allowed |= members(value.split())
    return allowed


def members(names: Iterable[str]) -> set[str]:
    """Resolve sets, such as ``@file-system``, into the calls that are in them."""
    calls: set[str] = set()
    for name in names:
        if name.startswith("@"):
            listing = subprocess.run(
                ["systemd-analyze", "--no-pager", "syscall-filter", name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            calls |= members(re.findall(r"^ +([@\w-]+)$", listing, re.M))
        else:
            calls.add(name)
    return calls


def confine(unit: str) -> None:
    """Apply a unit's filters to this process and all that it becomes."""
    calls = Filter(_DENY)
    for call in allowed_calls(settings(unit, "SystemCallFilter")) - {"socket"}:
        calls.add(_ALLOW, call)
    for family in " ".join(settings(unit, "RestrictAddressFamilies")).split():
        number = getattr(socket, family)
        calls.add(_ALLOW, "socket", _Comparison(0, _EQUAL, number))
    executable = Filter(_ALLOW)
    if settings(unit, "MemoryDenyWriteExecute")[-1] == "yes":
        for call, argument, bits in _EXECUTABLE:
            executable.add(_DENY, call, _Comparison(argument, _MASKED_EQUAL, bits, bits))
    executable.load()
    calls.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text())
    os.execvp(sys.argv[2], sys.argv[2:])
