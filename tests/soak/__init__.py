"""What the tests try a few times, as often and as long as one likes: ``python -m tests.soak``.

A round of each kind is a function that the tests use as well.
"""

from tests.soak.kill import JOURNAL, check_replay, kill_round, replay

__all__ = ["JOURNAL", "check_replay", "kill_round", "replay"]
