"""Where an option's value comes from, and what is wrong with a file."""

import os
import re
from pathlib import Path

import pytest

from alphapulse_relay.option_sources import CONFIG_MAX, OptionError, config_path, sources
from alphapulse_relay.option_table import OPTIONS, RELAY
from alphapulse_relay.options import settings_from

NAMES = [option.name for option in OPTIONS]
NO_LIST = 'is not a list of strings, such as ["..."]'


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "relay.toml"
    path.write_text(text)
    return str(path)


class TestWhatWasGiven:
    def test_where_each_is_from(self, tmp_path):
        file = toml(tmp_path, 'hold = 2\nlisten = ["tcp:1"]\n')
        found = sources(RELAY, {"config": file, "cpu": "0"}, {"SIGNAL_RELAY_DOMAINS": "3"})
        assert found["hold"] == ("2", f"from {file}")
        assert found["listen"] == (["tcp:1"], f"from {file}")
        assert found["cpu"] == ("0", "flag")
        assert found["domains"] == ("3", "from SIGNAL_RELAY_DOMAINS")
        assert found["fsync"] == ("1", "default")
        assert list(found) == [option.name for option in OPTIONS]

    def test_file_that_cannot_be_read(self, tmp_path):
        with pytest.raises(OptionError) as raised:
            sources(RELAY, {"config": str(tmp_path / "none")}, {})
        assert raised.value.option == "config"

    @pytest.mark.parametrize(
        ("flags", "environ", "found"),
        [
            ({}, {}, None),
            ({"config": "none"}, {"SIGNAL_RELAY_CONFIG": "/a"}, None),
            ({}, {"SIGNAL_RELAY_CONFIG": "/a"}, Path("/a")),
            ({"config": "b"}, {"SIGNAL_RELAY_CONFIG": "/a"}, Path("b")),
        ],
    )
    def test_config(self, flags, environ, found):
        assert config_path(RELAY, flags, environ) == found

    @pytest.mark.parametrize(
        ("message", "option"),
        [("--web-token-file: 'x'", "web-token-file"), ("unexpected argument", "")],
    )
    def test_option_of_an_error(self, message, option):
        assert OptionError(message).option == option


class TestWrongFile:
    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ("socket-mode = 660", '--socket-mode{}: 660 is not a string, such as "660"'),
            ("socket-mode = 0o660", '--socket-mode{}: 432 is not a string, such as "660"'),
            ("max-peers = true", "--max-peers{}: True is not a string or a number"),
            ("max-peers = 1.5", "--max-peers{}: 1.5 is not a string or a number"),
            ("max-peers = 0", "--max-peers{}: '0' is not a whole number, 1 or more"),
            ("hold = inf", "--hold{}: 'inf' is not a number of seconds, 0 or more"),
            ("web-publish = 1", "--web-publish{}: 1 is not true or false"),
            ('web-publish = "true"', "--web-publish{}: 'true' is not true or false"),
            ('web-origin = "http://a"', "--web-origin{}: 'http://a' " + NO_LIST),
            ("hold = [1]", "--hold{}: [1] is not a string or a number"),
            ('listen = "tcp:1"', "--listen{}: 'tcp:1' " + NO_LIST),
            ("listen = [1]", "--listen{}: [1] " + NO_LIST),
            ("web.port = 1", '--web{}: {{\'port\': 1}} is not a string, such as '
             '"tcp:9750:interface=127.0.0.1"'),
        ],
    )  # fmt: skip
    def test_types(self, tmp_path, line, what):
        config = toml(tmp_path, line)
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert str(wrong.value) == what.format(f" (from {config})")
        assert wrong.value.status == 78

    @pytest.mark.parametrize(
        "value", [f"0x{'F' * 5000}", f"[0x{'F' * 5000}]"], ids=["number", "list"]
    )
    @pytest.mark.parametrize("name", ["max-peers", "listen", "hold"])
    def test_too_long(self, tmp_path, name, value):
        config = toml(tmp_path, f"{name} = {value}")
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        what = "the value is too long or nested too deeply"
        assert str(wrong.value) == f"--{name} (from {config}): {what}"
        assert wrong.value.status == 78

    @pytest.mark.parametrize(
        "text", [f"hold = {'[' * 3000}", f"hold{'.a' * 3000} = 1"], ids=["list", "keys"]
    )
    def test_nested_too_deeply(self, tmp_path, text):
        with pytest.raises(OptionError, match="nested too deeply") as wrong:
            settings_from({"config": toml(tmp_path, text)}, {})
        assert wrong.value.status == 78

    @pytest.mark.parametrize(
        ("key", "hint"),
        [
            ("hodl", "did you mean hold?"),
            ("max_peers", "did you mean max-peers?"),
            ("config", f"known are {', '.join(NAMES)}, access"),
        ],
    )
    def test_unknown_keys(self, tmp_path, key, hint):
        config = toml(tmp_path, f"{key} = 1")
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert str(wrong.value) == f"--config: {config}: unknown key {key!r}: {hint}"
        assert wrong.value.status == 78

    @pytest.mark.parametrize("second", ["[access]", "[[access]]"])
    def test_access_rules_that_are_no_list(self, tmp_path, second):
        config = toml(tmp_path, f"[access]\nname = 'a'\n{second}\nname = 'b'")
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": config}, {})
        assert str(wrong.value).endswith(
            "write [[access]] above the keys of each rule, not [access]"
        )
        assert wrong.value.status == 78

    def test_long_text_is_cut(self):
        with pytest.raises(OptionError) as wrong:
            settings_from({"validate": "x" * 81}, {})
        what = "is not one of framing, checksum, strict"
        assert str(wrong.value) == f"--validate: '{'x' * 40}…' {what}"

    def test_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.toml")
        (tmp_path / "long.toml").write_bytes(b"#" * (CONFIG_MAX + 1))
        for path, reason in (
            (tmp_path / "pipe.toml", "Not a regular file"),
            (Path("/dev/zero"), "Not a regular file"),
            (tmp_path, "Is a directory"),
            (tmp_path / "long.toml", f"More than {CONFIG_MAX} bytes"),
        ):
            with pytest.raises(OptionError) as wrong:
                settings_from({"config": str(path)}, {})
            assert str(wrong.value) == f"--config: cannot read {str(path)!r}: {reason}"
            assert wrong.value.status == 78

    def test_unreadable_file(self, tmp_path):
        path = str(tmp_path / "none.toml")
        with pytest.raises(OptionError) as wrong:
            settings_from({}, {"SIGNAL_RELAY_CONFIG": path})
        reason = f"cannot read {path!r}: No such file or directory"
        assert str(wrong.value) == f"--config (from SIGNAL_RELAY_CONFIG): {reason}"
        assert wrong.value.status == 78

    @pytest.mark.parametrize("content", [b"hold 1", b"hold = \xff", b"a = 1\na = 2"])
    def test_not_toml(self, tmp_path, content):
        path = tmp_path / "relay.toml"
        path.write_bytes(content)
        with pytest.raises(OptionError) as wrong:
            settings_from({"config": str(path)}, {})
        assert re.fullmatch(rf"--config: {path} is not TOML: .+", str(wrong.value))
        assert wrong.value.status == 78
