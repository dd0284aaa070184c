"""The C programs: made from their sources with the C compiler of the machine."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-pthread")


class CompileError(Exception):
    """There is no C compiler, or it failed."""


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """Return where the programs are made; it goes when Python ends."""
    return tempfile.TemporaryDirectory(prefix="benchmarks-")


@functools.cache
def compile_program(name: str) -> Path:
    """Return the program made from ``name.c``. Raises :class:`CompileError`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise CompileError("a C compiler is needed (on Debian: apt-get install gcc libc6-dev)")
    program = Path(_directory().name) / name
    program.parent.mkdir(exist_ok=True)
    command = (compiler, *FLAGS, "-o", program, SOURCES / f"{name}.c")
    done = subprocess.run(  # noqa: S603 - no outsider has a say in it
        command, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise CompileError(f"{name}.c cannot be compiled:\n{done.stderr}")
    return program
