"""``python -m alphapulse_relay.cli`` is ``signal-relay``."""

from alphapulse_relay.cli.main import main

main()
