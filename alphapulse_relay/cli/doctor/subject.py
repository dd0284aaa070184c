"""What is looked at: the settings that count, and what several checks ask of the same relay.

Each answer is had once, when it is first asked for.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.endpoints import side_port_url
from alphapulse_relay.cli.snapshot import Snapshot, fetch, not_a_status
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.journal.reader import Journal

if TYPE_CHECKING:
    from alphapulse_relay.option_sources import OptionError
    from alphapulse_relay.options import Settings


class Subject:
    """A relay as it is set up, and as it runs if it does.

    ``problems`` is what is wrong with the options; ``given`` are the options' values as they were
    given, and where they are from (:func:`option_sources.sources`); ``config`` is the configuration
    file, if there is one. ``url`` is where its status is to be had, if not where ``--web`` says.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        problems: list[OptionError],
        given: dict[str, tuple[str | list[str], str]],
        config: Path | None,
        url: str | None,
    ) -> None:
        self.settings = settings
        self.problems = problems
        self.texts = {name: text for name, (text, _) in given.items()}
        self._origins = {name: origin for name, (_, origin) in given.items()}
        self.config = config
        self._url = url

    def is_guessed(self, option: str) -> bool:
        """Tell whether an option's value may be another, as what is wrong would say so.

        That may be any key of a file that is not understood. The access rules are an option here.
        """
        about = {name for each in self.problems for name in (each.option, *each.also)}
        unread = any(each.option == "config" and not each.also for each in self.problems)
        return option in about or (unread and self._origins.get(option, "default") == "default")

    @property
    def socket(self) -> str:
        """The socket's path, or ``@name`` of an abstract one."""
        return str(self.settings.socket)

    @property
    def is_abstract(self) -> bool:
        """Whether the socket has a name only, and no file (unix(7))."""
        return self.socket.startswith("@")

    @cached_property
    def listens(self) -> bool:
        """Whether anybody listens on the socket."""
        return bool(system.listening_inodes(self.socket))

    @cached_property
    def pid(self) -> int | None:
        """The relay's process: who listens, or has the lock, or says so itself; None if unknown."""
        with suppress(OSError):
            for inode in system.listening_inodes(self.socket):
                # systemd, which may have it open too, is no relay.
                pids = [pid for pid in system.holders(inode) if pid != 1]
                if pids:
                    return pids[0]
        with suppress(OSError):
            lock = Path(f"{self.socket}.lock")
            pid = None if self.is_abstract else system.lock_holder(lock)
            if pid is not None and system.is_alive(pid):
                return pid
        return self.snapshot.pid if isinstance(self.answer, dict) else None

    @property
    def uid(self) -> int | None:
        """The user that the relay runs as; None if that is unknown."""
        if self.pid is not None:
            with suppress(OSError):
                return system.owner_of(self.pid)
        return None

    @cached_property
    def url(self) -> str | None:
        """Where the status is to be had; None if that cannot be told."""
        if self._url is not None:
            return self._url
        return None if self.settings.web is None else side_port_url(self.settings.web)

    @cached_property
    def answer(self) -> dict[str, Any] | Failure | None:
        """The relay's status, or why there is none; None if there is nobody to ask."""
        if self.url is None:
            return None
        try:
            return fetch(self.url, self.settings.web_token_file)
        except Failure as failure:
            return failure

    @cached_property
    def snapshot(self) -> Snapshot:
        """What the status says. Raises :class:`Failure` without one."""
        if not isinstance(self.answer, dict):
            raise self.answer or Failure("there is no side port to ask")
        try:
            return Snapshot.read(self.answer)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise not_a_status(str(self.url)) from None

    @cached_property
    def journal(self) -> Journal | None:
        """What its journal holds; None without one. Raises ``FormatError`` and ``OSError``."""
        directory = self.settings.journal
        return None if directory is None else Journal.open(directory)
