"""What endpoint strings tell (``twisted.internet.endpoints.serverFromString``), without Twisted."""

import re

from alphapulse_relay.cli.snapshot import status_url

_PART = re.compile(r"(?:\\.|[^:\\])+")
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (asked, not bound)
"""Where to ask a port that is bound to all addresses."""


def parts_of(endpoint: str) -> tuple[list[str], dict[str, str]]:
    """Return an endpoint string's parts without names, its kind first, and those with names."""
    plain, named = [], {}
    for part in _PART.findall(endpoint):
        name, equals, value = part.partition("=")
        text = re.sub(r"\\(.)", r"\1", value if equals else part)
        if equals:
            named[name] = text
        else:
            plain.append(text)
    return plain, named


def side_port_url(endpoint: str) -> str | None:
    """Return where the status of a side port is to be had; None for what is no plain TCP port."""
    plain, named = parts_of(endpoint)
    port = named.get("port", plain[1] if len(plain) > 1 else "0")
    if plain[0] not in {"tcp", "tcp6"} or not port.isdecimal() or not int(port):
        return None
    interface = named.get("interface", "::" if plain[0] == "tcp6" else "")
    host = _EVERYWHERE.get(interface, interface)
    return status_url(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
