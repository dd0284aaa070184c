"""Where an option's value comes from: flag, then environment, then TOML file, then default.

Knows which source wins. Of the sources only that one is read, so a flag can overrule a wrong line
in a file.

In the environment an option is the program's name and its own in capitals, with ``_`` for ``-``,
such as ``SIGNAL_RELAY_HOLD``; an empty variable counts as not set, and others that begin so are
ignored (Kubernetes sets some for any service called signal-relay, and there are other programs
whose names begin so). In the file a key is the option's name as it is spelled in the table, with
``-``.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from twisted.python import usage

from alphapulse_relay.access_file import access_rules
from alphapulse_relay.hub.permission import AccessRules
from alphapulse_relay.option_table import CONFIG, Option, Table
from alphapulse_relay.small_files import read_small

USAGE_STATUS = 2
"""Exit status when a flag or an environment variable is wrong, as that of most programs.

When the configuration file is wrong, it is EX_CONFIG, 78 (sysexits.h).
"""
ACCESS = "access"
"""The key of the file that is no option: the access rules, see :mod:`access_file`."""
_NO_LIST = re.compile(rf"^\s*\[{ACCESS}\]", re.MULTILINE)
CONFIG_MAX = 1 << 20
"""Bytes of a configuration file that are read: far more than a person writes."""
_NOT_TABLES = f": write [[{ACCESS}]] above the keys of each rule, not [{ACCESS}]"
_SHOWN = 80
"""Characters of a text that are shown: what is wrong is to be seen beside it."""


class OptionError(usage.UsageError):
    """A value that is not accepted. ``str()`` is one line; ``status`` is the exit status.

    ``also`` are other options that it is about: with another value of one of them it would not be.
    """

    def __init__(
        self, message: str, status: int = USAGE_STATUS, also: tuple[str, ...] = ()
    ) -> None:
        super().__init__(" ".join(message.splitlines()))
        self.status = status
        self.also = also

    @property
    def option(self) -> str:
        """The name of the option that it is about, with which the message begins; may be empty."""
        found = re.match("--([a-z-]+)", str(self))
        return found[1] if found else ""


Tell = Callable[[OptionError], object]
"""Is told what is wrong. If it returns, that counts as not given, and the rest is gone on with."""


def refuse(error: OptionError) -> NoReturn:
    """Go on with nothing after what is wrong."""
    raise error


@dataclass(frozen=True)
class Given:
    """A value as it was given. ``origin`` tells a person where, if it was not a flag."""

    value: str | list[str]
    origin: str = ""
    status: int = USAGE_STATUS


def sources(
    table: Table,
    flags: Mapping[str, str | list[str]],
    environ: Mapping[str, str],
    tell: Tell = refuse,
) -> dict[str, tuple[str | list[str], str]]:
    """Return for each option, by name, the text or texts that count, and where they are from.

    That is ``flag``, ``default``, or ``from`` a variable or a file. ``tell`` is told what is wrong
    with the file.
    """
    given, _ = all_given(table, flags, environ, tell)
    return {name: (each.value, each.origin.strip(" ()") or "flag") for name, each in given.items()}


def config_path(
    table: Table, flags: Mapping[str, str | list[str]], environ: Mapping[str, str]
) -> Path | None:
    """Return where the configuration file is; None if none was named."""
    text = str(_given(table, CONFIG, flags, environ, {}).value)
    return None if text == CONFIG.default else Path(text)


def all_given(
    table: Table,
    flags: Mapping[str, str | list[str]],
    environ: Mapping[str, str],
    tell: Tell = refuse,
) -> tuple[dict[str, Given], AccessRules | None]:
    """Return the values by their options' names, and the access rules of the file, if any.

    ``flags`` holds the options that were given on the command line, ``config`` among them, by name;
    of a repeatable one a list. ``tell`` is told what is wrong with the file; the values are not
    read yet.
    """
    file, access = _read_file(table, _given(table, CONFIG, flags, environ, {}), tell)
    given = {each.name: _given(table, each, flags, environ, file) for each in table.options}
    return given, access


def default_of(option: Option) -> Given:
    """Return what counts where nothing is given."""
    return Given(option.default.split() if option.repeat else option.default, " (default)")


def _given(
    table: Table,
    option: Option,
    flags: Mapping[str, str | list[str]],
    environ: Mapping[str, str],
    file: Mapping[str, Given],
) -> Given:
    if option.name in flags:
        return Given(flags[option.name])
    variable = table.variable(option)
    if text := environ.get(variable):
        return Given(text.split() if option.repeat else text, f" (from {variable})")
    return file.get(option.name, default_of(option))


def value_of(option: Option, given: Given) -> Any:
    """Return an option's value; of a repeatable one a tuple. Raises :class:`OptionError`."""
    texts = given.value if isinstance(given.value, list) else [given.value]
    values = []
    for text in texts:
        try:
            values.append(option.read(text))
        except ValueError as error:
            shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…"
            message = f"--{option.name}{given.origin}: {shown!r} {error}"
            raise OptionError(message, given.status) from error
    return tuple(values) if option.repeat else values[0]


def _read_file(
    table: Table, config: Given, tell: Tell
) -> tuple[dict[str, Given], AccessRules | None]:
    path = str(config.value)
    if path == CONFIG.default:
        return {}, None
    try:
        content = _load(path, f"--config{config.origin}")
    except OptionError as error:
        tell(error)
        return {}, None
    access = None
    if table.access:
        access = access_rules(content.pop(ACCESS, []), lambda error: tell(_wrong_rule(path, error)))
    given = {}
    for name, value in content.items():
        try:
            given[name] = _from_toml(_option_of(table, name, path), value, path)
        except OptionError as error:
            tell(error)
    return given, access


def _load(path: str, where: str) -> dict[str, Any]:
    content = ""
    try:
        content = read_small(Path(path), CONFIG_MAX).content.decode()
        return tomllib.loads(content)
    except OSError as error:
        message = f"{where}: cannot read {path!r}: {error.strerror}"
        raise OptionError(message, os.EX_CONFIG) from error
    except ValueError as error:
        hint = _NOT_TABLES if _NO_LIST.search(content) else ""
        raise OptionError(f"{where}: {path} is not TOML: {error}{hint}", os.EX_CONFIG) from error
    except RecursionError:
        raise OptionError(f"{where}: {path} is nested too deeply", os.EX_CONFIG) from None


def _wrong_rule(path: str, error: ValueError) -> OptionError:
    wrong = OptionError(f"--config: {path}: {error}", os.EX_CONFIG, (ACCESS,))
    wrong.__cause__ = error
    return wrong


def _option_of(table: Table, name: str, path: str) -> Option:
    if name in table.by_name:
        return table.by_name[name]
    known = [*table.by_name, *([ACCESS] if table.access else [])]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    raise OptionError(f"--config: {path}: unknown key {name!r}: {hint}", os.EX_CONFIG)


def _from_toml(option: Option, value: object, path: str) -> Given:
    name, origin = option.name, f" (from {path})"
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # more digits, or brackets, than Python writes
        message = f"--{name}{origin}: the value is too long or nested too deeply"
        raise OptionError(message, os.EX_CONFIG) from None
    if option.repeat:
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return Given(value, origin, os.EX_CONFIG)
        message = f'--{name}{origin}: {shown} is not a list of strings, such as ["..."]'
    elif type(value) in option.types:
        text = str(value).lower() if option.switch else str(value)
        return Given(text, origin, os.EX_CONFIG)
    elif option.switch:
        message = f"--{name}{origin}: {shown} is not true or false"
    else:
        accepted = " or a number" if len(option.types) > 1 else f', such as "{option.default}"'
        message = f"--{name}{origin}: {shown} is not a string{accepted}"
    raise OptionError(message, os.EX_CONFIG)
