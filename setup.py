"""What pyproject.toml cannot say: where the packages lie.

``package_dir={"": "."}`` makes an editable install a plain path entry, which is where Twisted
looks for ``twisted/plugins``. That folder has no ``__init__.py``, so it is named here.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("alphapulse_relay/__init__.py").read_text())
assert VERSION is not None

setup(
    version=VERSION[1],
    package_dir={"": "."},
    packages=[*find_packages(include=["alphapulse_relay*"]), "twisted.plugins"],
    package_data={"alphapulse_relay": ["py.typed"], "alphapulse_relay.protocol_v2": ["*.toml"]},
)
