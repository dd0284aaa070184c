"""What pyproject.toml cannot say: where the packages lie, and what is compiled.

``package_dir={"": "."}`` makes an editable install a plain path entry, which is where Twisted
looks for ``twisted/plugins``. That folder has no ``__init__.py``, nor has the live page's, so they
are named here.
"""

import re
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("alphapulse_relay/__init__.py").read_text())
assert VERSION is not None
PACKAGE = Path("alphapulse_relay")
PAGE = "alphapulse_relay.web.page"
COMPILED = ("alphapulse_relay.protocol_v2._scan", "alphapulse_relay.hub._fanout")


def extension(module: str) -> Extension:
    """Return a compiled module, optional: without a compiler the relay is pure Python."""
    return Extension(
        module,
        [module.replace(".", "/") + ".pyx"],
        include_dirs=["alphapulse_relay/protocol_v2", "alphapulse_relay/journal"],
        depends=[str(path) for glob in ("*.h", "*.pxd") for path in PACKAGE.rglob(glob)],
        extra_compile_args=["-O2"],
        optional=True,
    )


setup(
    version=VERSION[1],
    package_dir={"": "."},
    packages=[*find_packages(include=["alphapulse_relay*"]), PAGE, "twisted.plugins"],
    package_data={
        "alphapulse_relay": ["py.typed"],
        "alphapulse_relay.protocol_v2": ["*.toml"],
        PAGE: ["*.html", "*.js", "*.css"],
    },
    # The wire is little-endian, and so is the C code.
    ext_modules=[extension(module) for module in COMPILED] if sys.byteorder == "little" else [],
)
