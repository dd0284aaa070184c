"""One run of one target under libFuzzer, which ends the process.

Only the modules that the target is about are instrumented (``atheris.instrument_imports`` would
take the whole package): the others would take time, and lead the fuzzer to what does not matter.
``python -m fuzz.engine TARGET OPTION...``; status 77 is a finding, whose input libFuzzer has kept.
"""

import gc
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import atheris
from twisted.logger import globalLogBeginner


def fuzz(target: Any, options: list[str]) -> None:
    """Give a target's function whatever libFuzzer thinks of; ``options`` are libFuzzer's."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    for module in target.MODULES:
        for function in functions(module):
            function.__code__ = atheris.patch_code(function.__code__, target.COMPARISONS)
    gc.collect()
    gc.freeze()
    atheris.Setup([sys.argv[0], f"-max_len={target.MAX_LEN}", *options], target.run)
    atheris.Fuzz()


def functions(module: ModuleType) -> Iterator[FunctionType]:
    """Yield a module's own functions, and its classes' methods."""
    for found in vars(module).values():
        if isinstance(found, type) and found.__module__ == module.__name__:
            for each in vars(found).values():
                yield from _functions_of(each, module)
        else:
            yield from _functions_of(found, module)


def _functions_of(found: object, module: ModuleType) -> Iterator[FunctionType]:
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, cached_property):
        found = found.func
    elif isinstance(found, classmethod | staticmethod):
        found = found.__func__
    if isinstance(found, FunctionType) and found.__module__ == module.__name__:
        yield found


if __name__ == "__main__":
    fuzz(import_module(f"fuzz.{sys.argv[1]}"), sys.argv[2:])
