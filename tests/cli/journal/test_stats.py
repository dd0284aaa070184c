"""How much of what there is."""

import json

from tests.cli.journal.looking import damage, journal
from tests.journal.writer import Segment, message, save


class TestStats:
    def test_json(self, tmp_path, written):
        shown = journal("stats", "--json", directory=tmp_path)
        document = json.loads(shown.stdout)
        size = len(written[0].data)
        assert document["total"]["messages"] == 20
        assert [(t["type"], t["messages"], t["bytes"]) for t in document["types"]] == [
            (21, 14, 14 * size),
            (22, 6, 6 * size),
        ]
        assert document["types"][1]["name"] == "SignalIdentity"
        assert [(s["source"], s["messages"]) for s in document["sources"]] == [(20, 17), (30, 3)]
        assert document["total"]["first"] == "1970-01-01T00:16:40.000000000Z"
        assert document["without_type"] == {"messages": 0, "bytes": 0, "first": None, "last": None}

    def test_table(self, tmp_path, written):
        shown = journal("stats", directory=tmp_path)
        assert shown.exit_code == 0
        assert "21 ArbitrageSignal" in shown.stdout
        assert shown.stdout.splitlines()[-1] == f"20 messages, {20 * len(written[0].data):,} bytes"

    def test_nothing_that_recent(self, tmp_path, written):
        shown = journal("stats", "--since", "1h", "--json", directory=tmp_path)
        assert json.loads(shown.stdout)["total"]["messages"] == 0

    def test_message_without_types(self, tmp_path):
        first = Segment().fill([message(1)[:24] + bytes(8)])
        save(tmp_path, first)
        document = json.loads(journal("stats", "--json", directory=tmp_path).stdout)
        assert document["without_type"]["messages"] == 1

    def test_damage_is_not_counted_and_told(self, tmp_path, written):
        damage(tmp_path, written[4])
        shown = journal("stats", "--json", directory=tmp_path)
        assert json.loads(shown.stdout)["total"]["messages"] == 19
        assert shown.exit_code == 1
