"""The worker: one thing after the other in a thread, told of in the reactor's."""

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from alphapulse_relay.hub.worker import ThreadWorker

PATIENCE = 10.0


class FakeReactor:
    """Keeps what is called from threads, until told to turn."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.called = threading.Semaphore(0)

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self.calls.append((function, arguments))
        self.called.release()

    def turn(self) -> None:
        assert self.called.acquire(timeout=PATIENCE)
        function, arguments = self.calls.pop(0)
        function(*arguments)


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


def test_works_elsewhere_and_tells_here(reactor: FakeReactor) -> None:
    worker, told = ThreadWorker(reactor, "test"), []

    def done(future: Future[int]) -> None:
        told.append((future.result(), threading.get_ident()))

    worker.submit(threading.get_ident, done)
    reactor.turn()
    ((worked_in, told_in),) = told
    assert worked_in != told_in == threading.get_ident()
    worker.close()


def test_one_after_the_other(reactor: FakeReactor) -> None:
    worker, order = ThreadWorker(reactor, "test"), []
    for number in range(20):
        worker.submit(lambda number=number: order.append(number), lambda _: None)
    for _ in range(20):
        reactor.turn()
    assert order == list(range(20))
    worker.close()


def test_a_failure_is_in_the_future(reactor: FakeReactor) -> None:
    worker, told = ThreadWorker(reactor, "test"), []

    def work() -> None:
        raise OSError(5, "broken")

    worker.submit(work, told.append)
    reactor.turn()
    assert isinstance(told[0].exception(), OSError)
    worker.close()


def test_close_waits_cancels_what_is_not_begun_and_tells_nothing(reactor: FakeReactor) -> None:
    worker, told = ThreadWorker(reactor, "test"), []
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert go_on.wait(PATIENCE)
        return "done"

    first = worker.submit(work, told.append)
    second = worker.submit(lambda: "never", told.append)
    assert begun.wait(PATIENCE)
    threading.Timer(0.01, go_on.set).start()
    worker.close()
    assert first.result() == "done"
    assert second.cancelled()
    while reactor.calls:
        reactor.turn()
    assert told == []
