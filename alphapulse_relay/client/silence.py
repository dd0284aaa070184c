"""When a connection on which nothing comes is to be given up. Time is passed in."""

from enum import Enum

ASK_AFTER = 15.0
"""Seconds of silence after which the relay is asked for a sign of life."""
ANSWER_WITHIN = 15.0
"""Seconds after which a relay that was asked, and sent nothing, is taken for dead: it may be busy
for a while, but then whoever waits for its messages waits in vain too."""


class Verdict(Enum):
    """What a silence calls for."""

    WAIT = "wait"
    ASK = "ask"
    GIVE_UP = "give up"


class Silence:
    """How long nothing has come on a connection; ``now`` is in seconds of any one clock."""

    def __init__(self, now: float) -> None:
        self._heard = now
        self._asked: float | None = None

    def heard(self, now: float) -> None:
        """Note that something came."""
        self._heard = now
        self._asked = None

    def judge(self, now: float) -> Verdict:
        """Return what to do; after ``ASK`` it counts as asked."""
        if self.left(now) > 0:
            return Verdict.WAIT
        if self._asked is not None:
            return Verdict.GIVE_UP
        self._asked = now
        return Verdict.ASK

    def left(self, now: float) -> float:
        """Return in how many seconds to judge again."""
        if self._asked is None:
            return self._heard + ASK_AFTER - now
        return self._asked + ANSWER_WITHIN - now
