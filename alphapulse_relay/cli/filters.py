"""Which messages are wanted, as options say it.

Knows types and sources; neither where messages come from nor where they go.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from alphapulse_relay.cli.layouts import TypeParameter, source_numbers
from alphapulse_relay.protocol_v2.document import read_contents
from alphapulse_relay.protocol_v2.header import Header


@dataclass(frozen=True)
class Filter:
    """Which messages are wanted; an empty set stands for all."""

    types: frozenset[int]
    sources: frozenset[int]

    def admits(self, message: bytes) -> bool:
        """Whether the message is from one of the sources and holds a TLV of one of the types."""
        if not self.types and not self.sources:
            return True
        header = Header.unpack(message)
        if self.sources and header.publisher not in self.sources:
            return False
        if not self.types:
            return True
        tlvs = read_contents(message, header).tlvs
        return any(tlv.type in self.types for tlv in tlvs)


EVERYTHING = Filter(frozenset(), frozenset())


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which messages are wanted."""
    types = click.option(
        "--type",
        "-t",
        "types",
        type=TypeParameter(),
        multiple=True,
        help="Only messages with a TLV of these types: numbers or names, separated by commas.",
    )
    sources = click.option(
        "--source",
        "sources",
        metavar="NUMBER",
        multiple=True,
        callback=source_numbers,
        help="Only messages of these sources, separated by commas.",
    )
    return types(sources(command))
