"""Every option of the bridge, in one table."""

from alphapulse_relay import option_values as read
from alphapulse_relay.bridge import option_values as special
from alphapulse_relay.bridge.compression import When
from alphapulse_relay.option_table import LOG_OPTIONS, Option, Table

STATE_BESIDE = "bridge-NAME.state beside the relay's socket"
"""What the default of ``--state`` is called."""
_NUMBER = (str, int)

# fmt: off
BRIDGE = Table("signal-relay-bridge", (
    Option("relay", None, "/tmp/alphapulse/signals.sock",  # noqa: S108 (relays are deployed so)
           "address of the relay: the path of its socket, @NAME, tcp:HOST:PORT or "
           "tls:HOST:PORT:ca=FILE", special.relay_address, files="*.sock"),
    Option("nats", None, f"nats://127.0.0.1:{special.NATS_PORT}",
           "URL of a server of NATS, nats:// or tls://; repeatable, for a cluster (in the "
           "environment: separated by blanks)", special.nats_url, repeat=True),
    Option("name", None, special.HOST_NAME, "what this relay is called in the stream; no other may "
           "be called so", special.relay_name),
    Option("stream", None, "SIGNALS", "stream that the relays are joined by", special.stream_name),
    Option("subject", None, "signals", "what its subjects begin with, before the relay's name",
           special.subject),
    Option("create-stream", None, "false", "make the stream if there is none", read.truth, (bool,),
           switch=True),
    Option("replicas", None, "1", "of a stream that is made: how many servers keep it",
           special.replicas, _NUMBER, words=tuple("135")),
    Option("max-bytes", None, "10G", "of a stream that is made: its size; the oldest messages go "
           "first", special.stream_size, _NUMBER),
    Option("max-age", None, "7d", "of a stream that is made: how long messages are kept at most, "
           "such as 36h or 7d, or none", read.age, _NUMBER),
    Option("types", None, special.ALL, "message types that are sent to NATS, such as 1-19,40",
           special.byte_list_or_all, _NUMBER),
    Option("sources", None, special.ALL, "sources whose messages are sent to NATS, such as 20,21",
           special.byte_list_or_all, _NUMBER),
    Option("take-types", None, special.ALL, "message types that are taken from NATS",
           special.byte_list_or_all, _NUMBER),
    Option("take-sources", None, special.ALL, "sources whose messages are taken from NATS",
           special.byte_list_or_all, _NUMBER),
    Option("take-from", None, special.ALL, "name of a relay whose messages are taken from NATS; "
           "repeatable (in the environment: separated by blanks)", special.relay_or_all,
           repeat=True),
    Option("split-by-type", None, "false", "add the message type to the subjects, for those who "
           "want some only", read.truth, (bool,), switch=True),
    Option("compress", None, "auto", "when runs are compressed for NATS, by zstd: auto, always or "
           "never", special.when_to_compress, words=tuple(When)),
    Option("state", None, STATE_BESIDE, "file that keeps how far messages are taken from NATS",
           read.path, files="*.state"),
    Option("web", None, "tcp:9751:interface=127.0.0.1",
           "endpoint of the side port (metrics, health), or none", read.optional_endpoint),
    Option("nice", None, "10", "how far it stands behind other programs where processors are few: "
           "0 (not at all) to 19", special.niceness, _NUMBER, words=("0", "10", "19")),
    Option("credentials", None, "none", "file with a user's credentials for NATS, or none",
           special.credentials_file, files="*.creds"),
    Option("user", None, "none", "user for NATS, or none", special.user),
    Option("password-file", None, "none", "file with that user's password, or none",
           special.secret_file, files="*"),
    Option("token-file", None, "none", "file with a token for NATS, or none", special.secret_file,
           files="*"),
    Option("tls-ca", None, "none", "file with the authorities that the servers' certificates must "
           "be of, in PEM, or none: those that the system trusts", special.certificates_file,
           files="*.pem"),
    Option("tls-cert", None, "none", "file with the bridge's own certificate for NATS, in PEM, or "
           "none", special.certificates_file, files="*.pem"),
    Option("tls-key", None, "none", "file with the key of that certificate, or none",
           special.key_file, files="*"),
    *LOG_OPTIONS,
))
# fmt: on
