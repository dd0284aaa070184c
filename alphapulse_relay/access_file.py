"""The access rules as the configuration file has them: its ``[[access]]`` tables.

Knows their keys, and what is accepted. Each reader takes a value of the file and returns what it
means, or raises a ``ValueError`` that goes on where the value ends, as those of
:mod:`~alphapulse_relay.option_values` do.
"""

import difflib
import grp
import pwd
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from alphapulse_relay import option_values as read
from alphapulse_relay.hub.permission import AccessRules, Rule
from alphapulse_relay.protocol_v2.header import Domain

ID_MAX = (1 << 32) - 2
"""The largest uid or gid: the one above means none (chown(2))."""
_NAME_MAX = 64
"""Characters of a rule's name: it is a label of metrics."""
_Item = TypeVar("_Item")


class _TableError(ValueError):
    """What is wrong in a table; ``str()`` begins with where."""


def access_rules(tables: object, tell: Callable[[ValueError], object]) -> AccessRules | None:
    """Return the rules that the value of ``access`` is; None for no tables.

    ``tell`` is told what is wrong in a table, and in which; if it returns, the others count.
    """
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        tell(ValueError("[[access]] is to be tables: write [[access]] above the keys of each rule"))
        return None
    rules: dict[str, Rule] = {}
    for number, table in enumerate(tables, 1):
        try:
            rule = _rule(table, _title(number, table))
            if rule.name in rules:
                title = _title(number, table)
                raise ValueError(f"{title}, name: another rule has that name already")
        except ValueError as error:
            tell(error)
        else:
            rules[rule.name] = rule
    # Where all are wrong there is still nobody who may do all.
    return AccessRules(tuple(rules.values())) if tables else None


def _title(number: int, table: Mapping[str, object]) -> str:
    name = table.get("name")
    known = isinstance(name, str) and name.isprintable()
    return f"[[access]] {number}" + (f" ({name})" if known else "")


def _rule(table: Mapping[str, object], title: str) -> Rule:
    if "name" not in table:
        raise ValueError(f"{title}: name is missing")
    return Rule(**_fields(table, title, _KEYS))


def _fields(
    table: Mapping[str, object], title: str, keys: Mapping[str, Callable[[Any], dict[str, Any]]]
) -> dict[str, Any]:
    """Return what the keys of a table say, as fields of a rule."""
    fields: dict[str, Any] = {}
    for key, value in table.items():
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(keys)}"
            raise _TableError(f"{title}: unknown key {key!r}: {hint}")
        try:
            fields |= keys[key](value)
        except _TableError as error:
            raise _TableError(f"{title}, {error}") from error
        except ValueError as error:
            raise _TableError(f"{title}, {key}: {_shown(value)} {error}") from error
    return fields


def _shown(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # more digits, or brackets, than Python writes
        return "the value"


def _field(name: str, read_value: Callable[[Any], object]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: read_value(value)}


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= _NAME_MAX:
        raise ValueError(f"is not a name of 1 to {_NAME_MAX} printable characters")
    return value


def _each(value: object, read_item: Callable[[object], _Item], what: str) -> list[_Item]:
    """Read each item of a list; an empty one would be for nobody, or for everybody."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"is not a list of {what}, with one or more")
    return [read_item(item) for item in value]


def _uids(value: object) -> frozenset[int]:
    return frozenset(_each(value, _uid, 'user IDs and names, such as [1001, "trader"]'))


def _uid(item: object) -> int:
    return _id(item, "user", lambda name: pwd.getpwnam(name).pw_uid)


def _gids(value: object) -> frozenset[int]:
    return frozenset(_each(value, _gid, 'group IDs and names, such as [1001, "desk"]'))


def _gid(item: object) -> int:
    return _id(item, "group", lambda name: grp.getgrnam(name).gr_gid)


def _id(item: object, kind: str, look_up: Callable[[str], int]) -> int:
    if isinstance(item, str):
        try:
            return look_up(item)
        except (KeyError, ValueError):
            raise ValueError(f"has a {kind} that is not known here: {item!r}") from None
    if type(item) is not int or not 0 <= item <= ID_MAX:
        raise ValueError(f"has {_shown(item)}, which is neither a {kind}'s ID nor its name")
    return item


def _certificates(value: object) -> tuple[str, ...]:
    return tuple(_each(value, _pattern, 'names, such as ["*.desk.example"]'))


def _pattern(item: object) -> str:
    if not isinstance(item, str) or not item.isprintable() or not all(item.split(".")):
        raise ValueError(f"has {_shown(item)}, which is not a name such as *.desk.example")
    if any("*" in label and label != "*" for label in item.split(".")):
        raise ValueError(
            f"has {item!r}, where * stands for a part of a label: only for a whole one"
        )
    return item


def _token(value: object) -> str:
    token = read.token_file(value) if isinstance(value, str) else None
    if token is None:
        raise ValueError("is not the path of a file with a token")
    return token


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is not true or false")
    return value


def _count(value: object) -> int:
    if type(value) is not int:
        raise ValueError("is not a whole number, 1 or more")
    return read.count(str(value))


def _size(value: object) -> int:
    if type(value) not in (int, str):
        raise ValueError('is neither a number of bytes nor a size such as "10M"')
    size = read.size(str(value))
    if not size:
        raise ValueError("is not 1 or more")
    return size


def _publish(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"domains": None if value else frozenset()}
    if not isinstance(value, dict) or not value:
        raise ValueError("is not true, false, or such as {domains = [2], sources = [20, 21]}")
    return _fields(value, "publish", _PUBLISH_KEYS)


def _domains(value: object) -> frozenset[int]:
    numbers = _bytes(value)
    if Domain.SYSTEM in numbers:
        raise ValueError(f"has {Domain.SYSTEM:d}, which is kept for control messages")
    return numbers


def _bytes(value: object) -> frozenset[int]:
    return frozenset(_each(value, _byte, "numbers from 0 to 255"))


def _byte(item: object) -> int:
    if type(item) is not int or not 0 <= item <= 255:
        raise ValueError(f"has {_shown(item)}, which is not a number from 0 to 255")
    return item


_PUBLISH_KEYS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "domains": _field("domains", _domains),
    "sources": _field("sources", _bytes),
}
_KEYS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "name": _field("name", _name),
    "uid": _field("uids", _uids),
    "gid": _field("gids", _gids),
    "certificate": _field("certificates", _certificates),
    "token-file": _field("token", _token),
    "publish": _publish,
    "subscribe": _field("subscribe", _truth),
    "replay": _field("replay", _truth),
    "connections": _field("connections", _count),
    "messages-per-second": _field("messages_per_second", _count),
    "bytes-per-second": _field("bytes_per_second", _size),
}
