"""The signal table as a decoder in another language needs it."""

from typing import Any

from alphapulse_relay.protocol_v2.signals import Layout, SignalTable


def describe_layouts(table: SignalTable) -> dict[str, dict[str, Any]]:
    """Return each type's name, fields and sizes in bytes, by its number as text.

    ``fields`` are name and kind, in the order of their bytes, the reserved ones included: with them
    every offset is known. A type with only a name has none, and its ``size_max`` is -1.
    """
    return {str(number): _layout(layout) for number, layout in sorted(table.layouts.items())}


def _layout(layout: Layout) -> dict[str, Any]:
    return {
        "name": layout.name,
        "fields": [[name, kind.name] for name, kind in layout.fields.items()],
        "size": layout.size,
        "size_max": layout.size_max,
    }
