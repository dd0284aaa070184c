"""Messages, as they came on the wire."""

import os
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.cli.journal.looking import damage, journal
from tests.journal.writer import NEW_SEGMENT_NS


class TestExport:
    def export(self, directory: Path, *arguments: str) -> bytes:
        shown = journal("export", *arguments, directory=directory)
        assert (shown.exit_code, shown.stderr) == (0, "")
        return shown.stdout_bytes

    def test_all(self, tmp_path, written):
        assert self.export(tmp_path) == b"".join(one.data for one in written)

    def test_filters(self, tmp_path, written):
        wanted = [one.data for n, one in enumerate(written[:12]) if n % 4 == 3]
        assert self.export(tmp_path, "--source", "30") == b"".join(wanted)
        assert self.export(tmp_path, "-t", "SignalIdentity", "--source", "30") == b"".join(wanted)
        assert self.export(tmp_path, "--type", "23") == b""

    def test_places(self, tmp_path, written):
        assert self.export(tmp_path, "--last", "3") == b"".join(o.data for o in written[-3:])
        position = str(written[5].position)
        assert self.export(tmp_path, "--from-position", position) == b"".join(
            one.data for one in written[5:]
        )
        assert self.export(tmp_path, "--since", "1h") == b""
        assert len(self.export(tmp_path, "--since", str(NEW_SEGMENT_NS // 10**9))) > 0

    def test_last_counts_what_matches(self, tmp_path, written):
        wanted = [written[3].data, written[7].data, written[11].data]
        options = ["--source", "30", "--last"]
        assert self.export(tmp_path, *options, "2") == b"".join(wanted[1:])
        assert self.export(tmp_path, *options, str((1 << 64) - 1)) == b"".join(wanted)
        position = ["--from-position", str(written[8].position)]
        assert self.export(tmp_path, *options, "2", *position) == wanted[2]
        assert self.export(tmp_path, "--source", "99", "--last", "2") == b""

    def test_file_appears_whole(self, tmp_path, written):
        output = tmp_path / "out.v2"
        assert self.export(tmp_path, "--output", str(output)) == b""
        assert output.read_bytes() == b"".join(one.data for one in written)
        assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.v2"]

    def test_file_that_cannot_be_written(self, tmp_path, written):
        output = tmp_path / "no" / "out.v2"
        done = run("journal", "export", "-j", str(tmp_path), "-o", str(output))
        assert done.returncode == 1
        told = f"signal-relay: cannot write {output}: No such file or directory\n"
        assert done.stderr.decode() == told

    def test_damage_is_left_out_and_told(self, tmp_path, written):
        damage(tmp_path, written[4])
        shown = journal("export", directory=tmp_path)
        kept = [one.data for one in written if one is not written[4]]
        assert shown.stdout_bytes == b"".join(kept)
        start, size = written[4].position, len(written[4].data)
        assert shown.stderr == (
            f"signal-relay: positions {start} to {start + size} are lost: damaged\n"
            f"signal-relay: {size} bytes of the journal could not be had\n"
        )
        assert shown.exit_code == 1

    def test_positions_that_are_gone(self, tmp_path, written):
        shown = journal("export", "--from-position", "3", directory=tmp_path)
        told = "warning: the journal no longer holds what is before 1000"
        assert (shown.exit_code, shown.stderr) == (0, f"signal-relay: {told}\n")

    def test_terminal(self, tmp_path, written):
        controller, end = os.openpty()
        options = {"capture_output": False, "stdout": end, "stderr": end}
        assert run("journal", "export", "-j", str(tmp_path), **options).returncode == 2
        os.close(controller)
        os.close(end)

    @pytest.mark.parametrize("options", [["--last", "0"], ["--since", "soon"], ["--source", "x"]])
    def test_wrong_usage(self, tmp_path, options):
        assert journal("export", *options, directory=tmp_path).exit_code == 2
