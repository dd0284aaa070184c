"""The board at different widths."""

import pytest
from rich.console import Console

from alphapulse_relay.cli.board import board, duration, flow, size
from alphapulse_relay.cli.snapshot import Snapshot
from tests.cli.side_port import document

FIRST = Snapshot.read(document(0.0))
SECOND = Snapshot.read(document(2.0))


def text(width: int, now: Snapshot = SECOND, **options: object) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    rates = options.pop("rates", None)
    with console.capture() as capture:
        console.print(board(now, rates, width, **options))
    return capture.get()


@pytest.mark.parametrize("width", [20, 40, 59, 60, 80, 99, 100, 200])
@pytest.mark.parametrize("rates", [None, flow(FIRST, SECOND)], ids=["once", "live"])
def test_fits(width, rates):
    lines = text(width, rates=rates).splitlines()
    assert max(map(len, lines)) <= width
    assert any("live" in line for line in lines)


def test_wide_has_everything():
    shown = text(120, rates=flow(FIRST, SECOND))
    heading = next(line for line in shown.splitlines() if "behind" in line)
    assert heading.split() == [
        "#",
        "pid",
        "uid",
        "name",
        "state",
        "in/s",
        "out/s",
        "in",
        "out",
        "behind",
    ]
    row = next(line for line in shown.splitlines() if "publisher" in line)
    assert row.split() == [
        "1",
        "4000",
        "1000",
        "publisher",
        "live",
        "100",
        "0",
        "200",
        "0",
        "2.4",
        "M",
    ]
    assert "received 400 messages, 200/s" in shown
    assert "dropped 3 (checksum 3), missed 0, held 0" in shown
    assert "up 0:00:12, ready" in shown


def test_in_a_narrow_terminal_names_give_way():
    now = Snapshot.read(document(2.0, name="flash_arbitrage"))
    row = next(
        line for line in text(38, now, rates=flow(FIRST, now)).splitlines() if "flash" in line
    )
    assert row.split() == ["flash_arb…", "live", "100", "0", "2.4", "M"]


def test_a_peer_goes_by_the_name_that_it_gave_itself():
    content = document(2.0)
    content["peers"][0] |= {"client_name": "risk"}
    row = next(line for line in text(120, Snapshot.read(content)).splitlines() if "risk" in line)
    assert "publisher" not in row


@pytest.mark.parametrize("width", [60, 80, 120])
def test_who_it_is_by_rule_and_certificate(width):
    content = document(2.0)
    assert not any(word in text(width) for word in ("rule", "certificate"))
    content["peers"][0] |= {"rule": "desk-" * 4, "certificate": ["a.example", "b.example"] * 4}
    lines = text(width, Snapshot.read(content)).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert any("rule" in line and "cert" in line for line in lines)
        assert any("desk" in line and "a." in line and "1000" in line for line in lines)


def test_who_was_refused():
    content = document()
    content["counters"]["connections"]["refused"] = {"forbidden": 3, "tls": 0}
    assert "\nrefused 3 (forbidden 3)\n" in text(80, Snapshot.read(content))
    assert "\nrefused 0\n" in text(80)


def test_replaying_is_a_state():
    content = document(2.0)
    content["peers"][0] |= {"state": "behind", "replaying": True}
    first, second = (
        line for line in text(80, Snapshot.read(content)).splitlines() if "publisher" in line
    )
    assert first.split()[3] == "replaying"
    assert second.split()[3] == "live"


def journal_lines(**journal: object) -> list[str]:
    content = document()
    content["journal"] |= journal
    shown = text(120, Snapshot.read(content)).splitlines()
    return shown[next(n for n, line in enumerate(shown) if line.startswith("journal ")) :][:2]


def test_journal():
    assert journal_lines() == ["journal /var/lib/relay/journal, 64.0 M of 1.0 G", ""]
    assert journal_lines(damages=2)[0].endswith("of 1.0 G, 2 places damaged")
    assert journal_lines(failure="no room for another segment")[1] == "no room for another segment"
    assert "\njournal none\n" in text(80, Snapshot.read(document() | {"journal": None}))


def test_departed():
    row = next(line for line in text(120).splitlines() if "overtaken" in line)
    assert row.split()[2:] == ["9", "4000", "1000", "gone", "overtaken", "5", "6"]
    assert "departed" not in text(120, Snapshot.read(document() | {"departed": []}))


def test_names_are_no_markup():
    now = Snapshot.read(document(name="[red]:smile:[/]"))
    assert "[red]:smile:[/]" in text(120, now)


def test_without_peers():
    assert "peers" in text(80, Snapshot.read(document(peers=0)))


def test_busiest_peers_where_there_is_not_room_for_all():
    content = document(1.0, peers=30)
    content["peers"][28]["messages_in"] = 10_000
    shown = text(120, Snapshot.read(content), rows=5)
    assert "… and 25 more" in shown
    assert "10000" in shown
    assert shown.count("publisher") == 5


def test_peers_to_look_after_come_first_where_there_is_not_room_for_all():
    content = document(0.0, peers=30)
    for number, peer in enumerate(content["peers"], 1):
        peer["messages_out"] = 1000 + number
    content["peers"][4] |= {"state": "muted", "name": "silent"}
    content["peers"][7] |= {"state": "behind", "name": "slow"}
    content["peers"][9] |= {"messages_in": 1, "name": "rare"}
    shown = text(120, Snapshot.read(content), rows=4)
    rows = [line.split()[3] for line in shown.splitlines() if " 4000 " in line]
    assert rows[:4] == ["slow", "silent", "rare", "publisher"]


def test_one_message():
    content = document(0.0)
    content["counters"]["messages_received"] = 1
    assert "received 1 message\n" in text(120, Snapshot.read(content))


def test_note():
    assert text(80, note="no answer; trying again").startswith("no answer; trying again")


class TestFlow:
    def test_rates(self):
        rates = flow(FIRST, SECOND)
        assert (rates.received, rates.delivered) == (200.0, 0.0)
        assert rates.peers == {1: (100.0, 0.0), 2: (100.0, 0.0)}

    def test_none_at_first_or_after_a_restart_or_without_time(self):
        other = Snapshot.read(document(3.0) | {"started_at": 5})
        assert flow(None, FIRST) is None
        assert flow(FIRST, other) is None
        assert flow(FIRST, FIRST) is None

    def test_new_peer_has_no_rate_yet(self):
        assert set(flow(Snapshot.read(document(0.0, peers=1)), SECOND).peers) == {1}


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 K"), (1 << 20, "1.0 M"), (1 << 60, "1048576.0 T")],
)
def test_size(number, shown):
    assert size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.9, "0:00:00"), (3661, "1:01:01"), (200_000, "2 d 7:33:20")]
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown
