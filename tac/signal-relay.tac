"""The relay as an application file: ``twistd -ny tac/signal-relay.tac``.

Settings come from the environment (``SIGNAL_RELAY_...``) and, if ``SIGNAL_RELAY_CONFIG`` names
one, a TOML file. The log is twistd's own: its ``--logfile``, ``--syslog`` and ``--logger`` apply,
and of the relay's ``log-format`` and ``log-level`` only the level ``debug``.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor

from alphapulse_relay.options import settings_or_exit
from alphapulse_relay.service import SignalRelayService

settings = settings_or_exit({}, os.environ)
application = Application("signal-relay")
SignalRelayService(settings, None, reactor).setServiceParent(application)
