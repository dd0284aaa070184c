"""Which modules of the client need Twisted."""

import subprocess
import sys
from pathlib import Path

import pytest

import alphapulse_relay.client
from tests.support import PATIENCE

MODULES = sorted(path.stem for path in Path(alphapulse_relay.client.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", sorted({*MODULES} - {"__init__", "endpoint", "reconnecting"}))
def test_only_the_service_needs_twisted(name):
    code = f"import sys, alphapulse_relay.client.{name}; sys.exit('twisted' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=False)
    assert done.returncode == 0
