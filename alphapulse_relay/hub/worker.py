"""A thread for what may wait for a disk, so that the reactor does not."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Worker(Protocol):
    """Does one thing after the other, elsewhere."""

    def submit(
        self, work: Callable[[], Result], done: Callable[[Future[Result]], None]
    ) -> Future[Result]:
        """Have ``work`` done; then, unless closed, ``done`` is called where the caller lives."""

    def close(self) -> None:
        """Take nothing more, and wait for what is under way."""


class ThreadWorker:
    """A thread of its own; ``done`` is called in the reactor's."""

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._threads = ThreadPoolExecutor(1, name)
        self._closed = False

    def submit(
        self, work: Callable[[], Result], done: Callable[[Future[Result]], None]
    ) -> Future[Result]:
        """Have ``work`` done in the thread."""
        future = self._threads.submit(work)
        future.add_done_callback(lambda each: self._reactor.callFromThread(self._tell, done, each))
        return future

    def close(self) -> None:
        """Wait for the thread to end; what it has not begun is cancelled."""
        self._closed = True
        self._threads.shutdown(cancel_futures=True)

    def _tell(self, done: Callable[[Future[Result]], None], future: Future[Result]) -> None:
        if not self._closed:
            done(future)
