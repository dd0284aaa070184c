"""The files that the options name."""

import os
import re
from pathlib import Path

import pytest

from alphapulse_relay import option_values
from alphapulse_relay.cli.doctor import files
from tests.authority import SERVER, Authority
from tests.cli.doctor.subjects import found, only, subject


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a-token.of_sixteen~or-more\n")
    path.chmod(0o640)
    return path


class TestSettings:
    def test_sound(self, tmp_path: Path) -> None:
        assert only(files.check_settings, subject(tmp_path)).verdict == "ok"

    def test_each_problem_is_told(self, tmp_path: Path) -> None:
        told = found(files.check_settings, subject(tmp_path, hold="x", max_peers="0"))
        assert told == [
            ("wrong", "--hold: 'x' is not a number of seconds, 0 or more"),
            ("wrong", "--max-peers: '0' is not a whole number, 1 or more"),
        ]

    def test_what_only_this_user_may_not_read(
        self, tmp_path: Path, token: Path, monkeypatch
    ) -> None:
        def deny(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(option_values, "read_small", deny)
        finding = only(files.check_settings, subject(tmp_path, web_token_file=str(token)))
        assert finding.verdict == "note"
        assert finding.what.endswith("cannot be read: Permission denied")


class TestConfig:
    @pytest.mark.parametrize(
        ("mode", "verdict"), [(0o644, "ok"), (0o600, "ok"), (0o664, "note"), (0o666, "wrong")]
    )
    def test_who_can_change_it(self, tmp_path: Path, mode: int, verdict: str) -> None:
        one = subject(tmp_path)
        one.config = tmp_path / "relay.toml"
        one.config.touch()
        one.config.chmod(mode)
        assert only(files.check_config, one).verdict == verdict

    def test_of_another_user(self, tmp_path: Path, monkeypatch) -> None:
        one = subject(tmp_path)
        one.config = tmp_path / "relay.toml"
        one.config.touch()
        if os.geteuid() == 0:
            os.chown(one.config, 54321, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 54321)
        assert only(files.check_config, one).verdict == "wrong"

    def test_none(self, tmp_path: Path) -> None:
        assert found(files.check_config, subject(tmp_path)) == []


class TestToken:
    def test_none(self, tmp_path: Path) -> None:
        assert found(files.check_token, subject(tmp_path)) == []

    @pytest.mark.parametrize(("mode", "verdict"), [(0o640, "ok"), (0o644, "wrong")])
    def test_who_may_read_it(self, tmp_path: Path, token: Path, mode: int, verdict: str) -> None:
        token.chmod(mode)
        one = subject(tmp_path, web_token_file=str(token))
        assert only(files.check_token, one).verdict == verdict
        assert only(files.check_settings, one).verdict == verdict


class TestCertificates:
    def listen(self, directory: Path, days: int = 365, more: str = "") -> list[str]:
        authority = Authority(directory)
        issued = authority.issue("relay.example", usage=SERVER, days=(-400, days), stem="relay")
        proof = f"certKey={issued.certificate}:privateKey={issued.key}"
        return [f"mtls:0:{proof}:clientCA={authority.file}{more}"]

    def verdicts(self, directory: Path, listen: list[str]) -> dict[str, str]:
        told = found(files.check_certificates, subject(directory, listen=listen))
        names = [Path(re.split("[,: ]", what)[0]).name for _, what in told]
        return {name: verdict for name, (verdict, _) in zip(names, told, strict=True)}

    def test_none(self, tmp_path: Path) -> None:
        assert found(files.check_certificates, subject(tmp_path)) == []

    @pytest.mark.parametrize(
        ("days", "verdict"), [(365, "ok"), (31, "ok"), (29, "note"), (0, "wrong"), (-5, "wrong")]
    )
    def test_days_left(self, tmp_path: Path, days: int, verdict: str) -> None:
        told = self.verdicts(tmp_path, self.listen(tmp_path, days))
        # The authority's own is good for 30 days less the time that has passed since.
        assert told == {"relay.pem": verdict, "authority.pem": "note", "relay.key": "ok"}

    def test_not_valid_yet(self, tmp_path: Path) -> None:
        issued = Authority(tmp_path).issue("relay.example", days=(5, 10), stem="relay")
        web = f"ssl:0:certKey={issued.certificate}:privateKey={issued.key}"
        told = found(files.check_certificates, subject(tmp_path, web=web))
        assert told[0][0] == "wrong"
        assert ": not valid before " in told[0][1]

    def test_open_key(self, tmp_path: Path) -> None:
        listen = self.listen(tmp_path)
        (tmp_path / "relay.key").chmod(0o644)
        assert self.verdicts(tmp_path, listen)["relay.key"] == "wrong"

    def test_list_out_of_date(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        listen = self.listen(tmp_path, more=f":crl={authority.crl}")
        authority.revoke(days=(-5, -1))
        assert self.verdicts(tmp_path, listen)["authority.crl"] == "wrong"
