"""The processes of a benchmark: a publisher and its consumers, through one load after the other.

Knows processes and in which order they act; what they do, ``publisher`` and
``consumer`` know. All wait for each other twice: until the consumers are connected, and until
the hello has reached them. So whatever is missing afterwards was lost.
"""

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, NamedTuple, Self

from alphapulse_relay.cli.bench.consumer import Received, consume
from alphapulse_relay.cli.bench.load import Load
from alphapulse_relay.cli.bench.publisher import Published, publish, wait_precisely
from alphapulse_relay.cli.words import Failure

TICK = 0.1
"""Seconds between two calls of what wants to know that a load goes on."""
LEAD = 20_000_000
"""Nanoseconds from the word to the start of a load: it reaches all processes before."""

Tick = Callable[[], None]
_SPAWN = get_context("spawn")  # a fork would share what this process has open


class MemberFailure(Failure):
    """What went wrong in a process of the benchmark; ``pid`` is its."""

    def __init__(self, name: str, pid: int, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.pid = pid


class Outcome(NamedTuple):
    """What came of a load: the publisher's account, and each consumer's."""

    published: Published
    received: tuple[Received, ...]


class Member:
    """A process of the benchmark, and the way to it."""

    def __init__(self, name: str, perform: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        self.control, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, perform, *arguments))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid or 0

    def tell(self, what: object) -> None:
        """Send a load, or the word to start; a process that is gone is noticed at its answer."""
        with suppress(BrokenPipeError):
            self.control.send(what)

    def answer(self) -> Any:
        """Return the next answer; raises :class:`MemberFailure`."""
        try:
            answer = self.control.recv()
        except (EOFError, ConnectionResetError):
            raise MemberFailure(self.name, self.pid, "its process ended early") from None
        if isinstance(answer, Failure):
            raise MemberFailure(self.name, self.pid, answer.message)
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.control.close()


class Crew:
    """A publisher and consumers, which live as long as the ``with`` block.

    >>> with Crew(consumers=3) as crew:
    ...     outcome = crew.run(load, tick)
    """

    def __init__(self, consumers: int) -> None:
        self.consumers = consumers
        self.pids: frozenset[int] = frozenset()
        self._sent = _SPAWN.RawValue("Q", 0)
        self._members: list[Member] = []

    @property
    def messages(self) -> int:
        """How many messages were written to the relay so far."""
        return int(self._sent.value)

    @property
    def direct_path(self) -> str:
        """Where consumers connect to the publisher itself."""
        return os.fsdecode(self._address)

    def __enter__(self) -> Self:
        # Its first start would let interrupts through to what is being started.
        resource_tracker.ensure_running()
        # An abstract name that the kernel chooses (unix(7)): nothing to remove afterwards.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, _uninterrupted():
            listener.bind("")
            listener.listen(self.consumers)
            self._address = listener.getsockname()
            try:
                self._start(listener)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.end()

    def _start(self, listener: socket.socket) -> None:
        for number in range(1, self.consumers + 1):
            self._members.append(Member(f"consumer {number}", _consume))
        self._members.append(Member("publisher", _publish, listener, self._sent))
        self.pids = frozenset(member.pid for member in self._members)

    def run(self, load: Load, tick: Tick) -> Outcome:
        """Carry out a load; ``tick`` is called now and then while it lasts.

        Raises :class:`MemberFailure`, also if a consumer did not get all messages.
        """
        *consumers, publisher = self._members
        for member in consumers:
            member.tell(load)
        _answers(consumers)
        # A relay accepts in the order in which is connected: consumers before their publisher.
        publisher.tell(load)
        _answers(self._members)
        start = time.monotonic_ns() + LEAD
        for member in self._members:
            member.tell(start)
        answers = _answers(self._members, tick)
        published: Published = answers[publisher]
        for member in consumers:
            got = answers[member].messages
            if got != published.messages:
                reason = f"got {got} of {published.messages} messages"
                raise MemberFailure(member.name, member.pid, reason)
        return Outcome(published, tuple(answers[member] for member in consumers))


def _answers(members: Iterable[Member], tick: Tick | None = None) -> Mapping[Member, Any]:
    """Return the next answer of each."""
    silent: dict[Any, Member] = {member.control: member for member in members}
    answers: dict[Member, Any] = {}
    while silent:
        for control in wait(list(silent), TICK):
            member = silent.pop(control)
            answers[member] = member.answer()
        if tick:
            tick()
    return answers


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C back, here until later, and for ever in the processes that are started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(control: Any, perform: Callable[..., Any], *arguments: Any) -> None:
    """Carry out loads until there is nobody to ask for more (the main function of a process)."""
    Thread(target=_end_with_parent, daemon=True).start()
    wait_precisely()
    gc.freeze()
    gc.disable()  # a collection would be taken for the relay's latency
    with suppress(EOFError, BrokenPipeError):
        while True:
            load = control.recv()
            try:
                control.send(perform(load, control, *arguments))
            except Failure as failure:
                control.send(failure)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _consume(load: Load, control: Any) -> Received:
    return consume(load, partial(control.send, None), partial(_wait_for_start, control))


def _publish(load: Load, control: Any, listener: socket.socket, sent: Any) -> Published:
    def report(messages: int) -> None:
        sent.value += messages

    return publish(load, listener, partial(_wait_for_start, control), report)


def _wait_for_start(control: Any) -> int:
    """Tell that all is ready; return when the load begins."""
    control.send(None)
    start: int = control.recv()
    return start
