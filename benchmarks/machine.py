"""What the figures were measured on."""

import os
import platform
from pathlib import Path
from typing import Any

IN_MEMORY = ("tmpfs", "ramfs")
"""File systems that are on no disk."""


def describe(directory: Path) -> dict[str, Any]:
    """Return the machine, for people who compare; ``directory`` is where was written."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(directory),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def file_system(directory: Path) -> str:
    """Return the kind of the file system that a directory is on, as mount(8) calls it."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    kinds = {line[1]: line[2] for line in lines}  # of two on one directory the later one counts
    place = directory.resolve()
    return next((kinds[str(d)] for d in (place, *place.parents) if str(d) in kinds), "unknown")


def _field(path: str, name: str) -> str:
    """Return the first value of a name in a file of lines ``name : value``; empty if none."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
