"""Whether all is what was written."""

from tests.cli.journal.looking import damage, journal


class TestVerify:
    def test_sound(self, tmp_path, written):
        shown = journal("verify", directory=tmp_path)
        assert (shown.exit_code, shown.stdout) == (0, "sound: 2 segments, 20 messages\n")
        assert shown.stderr == ""

    def test_damaged(self, tmp_path, written):
        damage(tmp_path, written[4])
        shown = journal("verify", directory=tmp_path)
        start, size = written[4].position, len(written[4].data)
        place = f"0000.v2: positions {start} to {start + size}, {size} bytes lost"
        assert shown.stdout == f"{place}: the checksum does not fit\n"
        assert shown.stderr == (
            f"signal-relay: the journal is damaged: 1 place, {size} bytes lost\n"
        )
        assert shown.exit_code == 1

    def test_what_can_be_mended_is_told_too(self, tmp_path, written):
        (tmp_path / "epoch.json").unlink()
        shown = journal("verify", directory=tmp_path)
        assert shown.stdout.startswith("epoch.json: at position 0, nothing lost: ")
        assert shown.exit_code == 1
        assert not (tmp_path / "epoch.json").exists()
