"""How far the limit of open files is raised, and what fits into it."""

import resource

import pytest

from alphapulse_relay.descriptors import needed, raise_limit, room_in

INFINITY = resource.RLIM_INFINITY
WANTED = 11_256


def test_needed() -> None:
    assert needed(10_000) == WANTED


@pytest.mark.parametrize(
    ("soft", "hard", "may_raise_hard", "possible", "limit"),
    [
        (1024, 4096, True, WANTED, (WANTED, WANTED)),
        (1024, 4096, False, 4096, (4096, 4096)),
        (1024, 1024, False, 1024, (1024, 1024)),
        (1024, 20_000, True, WANTED, (WANTED, 20_000)),
        (20_000, 20_000, False, WANTED, (20_000, 20_000)),
        (INFINITY, INFINITY, False, WANTED, (INFINITY, INFINITY)),
        (1024, INFINITY, False, WANTED, (WANTED, INFINITY)),
    ],
)
def test_the_limit_is_raised_as_far_as_may_be(
    monkeypatch: pytest.MonkeyPatch,
    soft: int,
    hard: int,
    may_raise_hard: bool,
    possible: int,
    limit: tuple[int, int],
) -> None:
    now = [(soft, hard)]

    def setrlimit(_: int, wanted: tuple[int, int]) -> None:
        if hard != INFINITY and wanted[1] > hard and not may_raise_hard:
            raise ValueError("not allowed to raise maximum limit")
        now[0] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert raise_limit(WANTED) == possible
    assert now[0] == limit


def test_a_sandbox_may_forbid_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def setrlimit(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 4096))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert raise_limit(WANTED) == 512


@pytest.mark.parametrize(
    ("limit", "peers", "room"),
    [
        (WANTED, 10_000, (10_000, 1000)),
        (WANTED - 1, 10_000, (9999, 1000)),
        (4096, 10_000, (2840, 1000)),
        (1024, 10_000, (512, 256)),
        (1266, 10, (10, 1000)),
        (1024, 10, (10, 256)),
        (343, 10_000, (2, 85)),
        (341, 10_000, (0, 85)),
        (64, 10_000, (0, 16)),
    ],
)
def test_room(limit: int, peers: int, room: tuple[int, int]) -> None:
    assert room_in(limit, peers) == room
