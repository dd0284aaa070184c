"""A relay that comes back with another journal."""

import shutil
from pathlib import Path

from tests.support import Relay


class Replaced:
    """A relay whose journal is made another one while it does not run."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.relay = Relay(directory=directory)
        self.socket = self.relay.socket
        self._backup = directory.with_name("backup")

    def __enter__(self) -> "Replaced":
        self.relay.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.relay.__exit__(*error)

    def stop(self) -> None:
        self.relay.stop()
        assert self.relay.process.stdout
        self.relay.process.stdout.close()

    def start(self) -> None:
        self.relay.start()
        self.relay.wait_for_log("serves")

    def back_up(self) -> None:
        shutil.copytree(self._journal(), self._backup)

    def restore(self) -> None:
        journal_ = self._journal()
        shutil.rmtree(journal_)
        self._backup.rename(journal_)

    def lose(self) -> None:
        shutil.rmtree(self._journal())

    def _journal(self) -> Path:
        (found,) = [path for path in self.relay.directory.iterdir() if path.is_dir()]
        return found
