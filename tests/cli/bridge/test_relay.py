"""What is thought of the relay, and of where a bridge would go on there."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from alphapulse_relay.cli.bridge import relay as module
from alphapulse_relay.cli.bridge.ends import Ends, Refusal
from alphapulse_relay.cli.bridge.relay import check_outward, check_relay
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import Message, Missed, Synced
from alphapulse_relay.client.errors import RelayError
from alphapulse_relay.protocol_v2.control import (
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    SyncState,
)
from tests.cli.bridge.looking import HEAD, HERE, ends, last, remember, stream
from tests.cli.doctor.subjects import found, only

HERE_NOW = Bookmark(HERE, HEAD, 0, 0)
FORBIDDEN = Refusal(RelayError(ErrorMessage(ErrorCode.FORBIDDEN, "no")))
FAILED = Refusal(RelayError(ErrorMessage(ErrorCode.NOT_DURABLE, "no")))


def answering(one: Ends, *events: Any) -> Ends:
    """Have the relay send events, or refuse, whatever place it is asked for."""

    def behind(position: int, epoch: int) -> Any:
        for event in events or (Synced(HERE_NOW, SyncState.LIVE),):
            if isinstance(event, Exception):
                raise event
            yield event

    vars(one)["behind"] = behind
    return one


class TestRelay:
    def test_it_is_there(self, tmp_path: Path) -> None:
        one = only(check_relay, answering(ends(tmp_path)))
        assert one.verdict == "ok"
        assert one.what.endswith("its journal is e, its head at position 1000")

    def test_none(self, tmp_path: Path) -> None:
        one = only(check_relay, ends(tmp_path, head=Failure("Connection refused")))
        assert one.what == "no relay at /nonexistent/s.sock: Connection refused"
        assert "signal-relay doctor --socket /nonexistent/s.sock" in one.mend

    def test_none_elsewhere(self, tmp_path: Path) -> None:
        one = ends(tmp_path, head=Failure("refused"), relay="tcp:10.0.0.1:1")
        assert "--socket" not in only(check_relay, one).mend

    @pytest.mark.parametrize(
        ("refusal", "mend"), [(FORBIDDEN, "[[access]]"), (FAILED, "signal-relay doctor")]
    )
    def test_it_refuses(self, tmp_path: Path, refusal: Refusal, mend: str) -> None:
        one = only(check_relay, ends(tmp_path, head=refusal))
        assert "does not let a bridge listen: the relay says: no" in one.what
        assert mend in one.mend

    def test_no_history(self, tmp_path: Path) -> None:
        there, history = found(check_relay, answering(ends(tmp_path), FORBIDDEN))
        assert (there[0], history[0]) == ("ok", "wrong")
        assert history[1].startswith("what comes while there is no bridge would not cross")


class TestOutward:
    def told(self, one: Ends, *events: Any, **state: Any) -> tuple[str, str]:
        """Return what is told where the relay sends events behind that place."""
        remember(answering(one, *events), **state)
        ((verdict, text),) = found(check_outward, one)
        return verdict, text

    def test_a_first_start(self, tmp_path: Path) -> None:
        one = only(check_outward, ends(tmp_path, stream()))
        assert one.what.startswith("a first start: what comes behind the head, position 1000")

    def test_nothing_waits(self, tmp_path: Path) -> None:
        told = self.told(ends(tmp_path, stream()), outward="e:1000:0:0")
        assert told == ("ok", "would go on behind position 1000, the head: nothing waits")

    def test_the_stream_knows_better(self, tmp_path: Path) -> None:
        told = self.told(ends(tmp_path, stream(last=last(700))), outward="e:100:0:0")
        assert told == ("ok", "would go on behind position 700, at most 300 B before the head")

    def test_within_a_run(self, tmp_path: Path) -> None:
        told = self.told(ends(tmp_path, stream()), outward="e:900:1:0")
        assert "behind position 900 and 1 message, at most 100 B" in told[1]

    def test_what_the_relay_has_no_more(self, tmp_path: Path) -> None:
        gap = Missed(Gap(HERE, 100, 350, GapReason.RETENTION), HERE_NOW)
        began = Synced(Bookmark(HERE, 100, 0, 0), SyncState.REPLAYING)
        verdict, text = self.told(ends(tmp_path, stream()), began, gap, outward="e:100:0:0")
        assert verdict == "wrong"
        assert text.endswith("250 B of that would not cross (relay_gap: retention)")

    def test_it_is_not_read_further_than_needed(self, tmp_path: Path) -> None:
        began = Synced(Bookmark(HERE, 100, 0, 0), SyncState.REPLAYING)
        some = Message(b"", HERE_NOW)
        events = (began, some, AssertionError("enough is known"))
        assert self.told(ends(tmp_path, stream()), *events, outward="e:100:0:0")[0] == "ok"

    def test_no_history_is_told_of_the_relay(self, tmp_path: Path) -> None:
        one = remember(answering(ends(tmp_path, stream()), FORBIDDEN), outward="e:100:0:0")
        assert found(check_outward, one) == []

    def test_another_journal(self, tmp_path: Path) -> None:
        verdict, text = self.told(ends(tmp_path, stream()), outward="f:100:0:0")
        assert (verdict, text.endswith("all that it has would cross")) == ("note", True)

    def test_a_journal_that_has_lost_its_end(self, tmp_path: Path) -> None:
        verdict, text = self.told(ends(tmp_path, stream()), outward="e:1001:0:0")
        assert (verdict, "beyond the relay's head, 1000" in text) == ("note", True)

    def test_the_file_has_gone(self, tmp_path: Path) -> None:
        verdict, text = self.told(ends(tmp_path, stream(last=last(700))))
        assert verdict == "ok"
        assert text.startswith("would go on behind position 700")

    def test_a_first_start_that_never_reached_nats(self, tmp_path: Path) -> None:
        verdict, text = self.told(ends(tmp_path, stream()), first="e:800:0:0")
        assert verdict == "ok"
        assert text.startswith("would go on behind position 800")

    def test_the_file_has_gone_and_nothing_came(self, tmp_path: Path) -> None:
        assert self.told(ends(tmp_path, stream(last=last(HEAD))))[0] == "ok"

    @pytest.mark.parametrize("nats", [None, Failure("no")])
    def test_by_the_file_alone(self, tmp_path: Path, nats: Any) -> None:
        assert "position 900" in self.told(ends(tmp_path, nats), outward="e:900:0:0")[1]

    def test_without_a_relay(self, tmp_path: Path) -> None:
        assert found(module.check_outward, ends(tmp_path, head=Failure("no"))) == []
