"""What checks find, and how that is told."""

import json

import pytest

from alphapulse_relay.cli.bridge.checks import CHECKS as OF_THE_BRIDGE
from alphapulse_relay.cli.doctor.checks import CHECKS as OF_THE_DOCTOR
from alphapulse_relay.cli.findings import (
    NAME_WIDTH,
    WRONG_STATUS,
    Finding,
    Result,
    Verdict,
    note,
    ok,
    report,
    wrong,
)

RESULTS = [
    Result("one", ok("fine")),
    Result("two", note("odd")),
    Result("three", wrong("bad", "do")),
]


def test_verdicts() -> None:
    assert ok("a") == Finding(Verdict.OK, "a", "")
    assert note("a", "b") == Finding(Verdict.NOTE, "a", "b")
    assert wrong("a", "b") == Finding(Verdict.WRONG, "a", "b")


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(RESULTS, as_json=False) == WRONG_STATUS
    assert capsys.readouterr().out == (
        "ok     one              fine\n"
        "note   two              odd\n"
        "wrong  three            bad\n"
        "                        do\n"
        "1 wrong, 1 note, 1 in order\n"
    )


def test_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(RESULTS, as_json=True) == WRONG_STATUS
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"ok": 1, "note": 1, "wrong": 1}
    assert document["findings"][1:] == [
        {"check": "two", "verdict": "note", "what": "odd", "mend": None},
        {"check": "three", "verdict": "wrong", "what": "bad", "mend": "do"},
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_is_wrong(as_json: bool) -> None:
    assert report(RESULTS[:2], as_json=as_json) == 0


def test_names_have_room() -> None:
    names = [name for name, _ in (*OF_THE_DOCTOR, *OF_THE_BRIDGE)]
    assert max(map(len, names)) == NAME_WIDTH
