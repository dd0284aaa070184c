"""What is told of a replay."""

from alphapulse_relay.cli.replay.account import Account, progress_bar
from alphapulse_relay.journal.reader import Lost


class FakeClock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def test_nothing():
    assert str(Account(FakeClock())) == "replayed 0 messages, 0 bytes in 0.000 s (0 messages/s)"


def test_messages_and_positions():
    clock = FakeClock()
    account = Account(clock)
    account.reached(100)
    account.add(bytes(40))
    account.add(bytes(60))
    account.reached(250)
    clock.now += 0.5
    told = "replayed 2 messages, 100 bytes in 0.500 s (4 messages/s), positions 100 to 250"
    assert str(account) == told


def test_what_is_missing(capsys):
    account = Account(FakeClock())
    account.miss(Lost(5, 8, "damaged"))
    assert str(account).endswith(" (0 messages/s), 3 bytes missing")
    assert capsys.readouterr().err == "signal-relay: positions 5 to 8 are missing: damaged\n"


def test_no_bar_without_a_terminal(capsys):
    account = Account()
    with progress_bar(account, 100, shown=True) as look:
        account.reached(50)
        look()
    assert capsys.readouterr() == ("", "")
