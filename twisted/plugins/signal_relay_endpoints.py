"""Makes the endpoint ``mtls:`` known to Twisted."""

from alphapulse_relay.tls import MutualTLSParser

mutual_tls = MutualTLSParser()
