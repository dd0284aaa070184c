"""What to do about a relay's reasons: why it drops messages, and why it refuses connections.

The reasons themselves are told in ``docs/operations.md``.
"""

from collections.abc import Mapping

DROPPED: Mapping[str, str] = {
    "checksum": "mend that publisher, or see --validate",
    "domain": "mend that publisher, or see --domains",
    "tlv": "mend that publisher, or see --tlv-types and --validate",
    "forbidden": "its [[access]] rule says what it may publish: publish =",
    "control": "it asked for what cannot be had, or what its [[access]] rule does not give",
    "read_only": "let WebSockets publish with --web-publish, or let that one not try",
    "torn": "it broke off inside a message: see why that program ended",
}
"""What is dropped otherwise is its publisher's fault alone."""

REFUSED: Mapping[str, str] = {
    "too_many_peers": "see --max-peers",
    "forbidden": "give them an [[access]] rule if they are to come in",
    "too_many_of_identity": "see connections = of their [[access]] rule",
    "host": "a page elsewhere may be trying, or see --web-origin",
    "origin": "see --web-origin",
    "token": "give them the token, or see --web-token-file",
    "tls": "and what was wrong: mostly a certificate",
}
