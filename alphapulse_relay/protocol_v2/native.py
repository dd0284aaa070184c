"""The one place that chooses between compiled and pure Python.

The compiled modules are optional: without a compiler at build time they are not there, and the
environment variable ``ALPHAPULSE_RELAY_PURE`` leaves them aside. Everything works without them.
"""

import os
from importlib import import_module
from types import ModuleType

SWITCH = "ALPHAPULSE_RELAY_PURE"


def load(name: str) -> ModuleType | None:
    """Return the compiled module of that name; None if there is none, or none is wanted.

    Raises ImportError for one that is there and cannot be loaded: built for another machine, say.
    """
    if os.environ.get(SWITCH, "") not in {"", "0"}:
        return None
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise
