"""What the ``[[access]]`` tables of the configuration file mean, and what is wrong with them."""

import grp
import os
import pwd
from pathlib import Path

import pytest

from alphapulse_relay.access_file import ID_MAX, access_rules
from alphapulse_relay.hub.permission import AccessRules, Rule
from alphapulse_relay.option_sources import OptionError
from alphapulse_relay.options import settings_from

USER = pwd.getpwuid(os.getuid())
GROUP = grp.getgrgid(os.getgid())
TOKEN = "a-token-of-16-or-more"


def config(directory: Path, text: str) -> str:
    path = directory / "relay.toml"
    path.write_text(text)
    return str(path)


def read(directory: Path, text: str) -> AccessRules | None:
    return settings_from({"config": config(directory, text)}, {}).access


def wrong(directory: Path, text: str) -> str:
    """Return what is said to be wrong, behind the file's name."""
    path = config(directory, text)
    with pytest.raises(OptionError) as error:
        settings_from({"config": path}, {})
    assert error.value.status == os.EX_CONFIG
    start = f"--config: {path}: "
    assert str(error.value).startswith(start)
    return str(error.value).removeprefix(start)


def token_file(directory: Path, content: str = TOKEN, mode: int = 0o600) -> Path:
    path = directory / "desk.token"
    path.write_text(content)
    path.chmod(mode)
    return path


def test_none(tmp_path: Path) -> None:
    assert settings_from({}, {}).access is None
    assert read(tmp_path, "hold = 2") is None
    assert access_rules([], pytest.fail) is None


def test_all_keys(tmp_path: Path) -> None:
    text = f"""
        hold = 2
        [[access]]
        name = "strategies"
        uid = [1001, "{USER.pw_name}"]
        gid = ["{GROUP.gr_name}", 7]
        certificate = ["*.strategies.example", "desk"]
        token-file = "{token_file(tmp_path)}"
        publish = {{domains = [2], sources = [20, 21]}}
        subscribe = false
        replay = false
        connections = 100
        messages-per-second = 10000
        bytes-per-second = "10M"
    """
    assert read(tmp_path, text) == AccessRules(
        (
            Rule(
                "strategies",
                frozenset({1001, USER.pw_uid}),
                frozenset({GROUP.gr_gid, 7}),
                ("*.strategies.example", "desk"),
                TOKEN,
                frozenset({2}),
                frozenset({20, 21}),
                False,
                False,
                100,
                10_000,
                10 << 20,
            ),
        )
    )


def test_in_order_and_what_is_not_said_is_allowed(tmp_path: Path) -> None:
    text = '[[access]]\nname = "b"\n[[access]]\nname = "a"\nuid = [0]\n'
    assert read(tmp_path, text) == AccessRules((Rule("b"), Rule("a", frozenset({0}))))


@pytest.mark.parametrize(
    ("publish", "domains", "sources"),
    [
        ("true", None, None),
        ("false", set(), None),
        ("{domains = [1, 2]}", {1, 2}, None),
        ("{sources = [0, 255]}", None, {0, 255}),
    ],
)
def test_publish(
    tmp_path: Path, publish: str, domains: set[int] | None, sources: set[int] | None
) -> None:
    rules = read(tmp_path, f'[[access]]\nname = "x"\npublish = {publish}')
    assert rules is not None
    assert (rules.rules[0].domains, rules.rules[0].sources) == (domains, sources)


@pytest.mark.parametrize(("size", "number"), [("1", 1), ('"64K"', 65536), ('"100"', 100)])
def test_bytes(tmp_path: Path, size: str, number: int) -> None:
    rules = read(tmp_path, f'[[access]]\nname = "x"\nbytes-per-second = {size}')
    assert rules is not None
    assert rules.rules[0].bytes_per_second == number


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("uid = 1001", "uid: 1001 is not a list of user IDs and names"),
        ("uid = []", "uid: [] is not a list of user IDs and names"),
        ("uid = [-1]", "uid: [-1] has -1, which is neither a user's ID nor its name"),
        (f"uid = [{ID_MAX + 1}]", f"uid: [{ID_MAX + 1}] has {ID_MAX + 1}, which is neither"),
        ("uid = [true]", "uid: [True] has True, which is neither a user's ID nor its name"),
        ("uid = [1.5]", "uid: [1.5] has 1.5, which is neither a user's ID nor its name"),
        ('uid = ["no such user"]', "has a user that is not known here: 'no such user'"),
        ('uid = ["a\\u0000b"]', "has a user that is not known here: "),
        ('gid = ["no such group"]', "has a group that is not known here: 'no such group'"),
        ("gid = []", "gid: [] is not a list of group IDs and names"),
        ('certificate = "desk"', "certificate: 'desk' is not a list of names"),
        ("certificate = [5]", "certificate: [5] has 5, which is not a name such as"),
        ('certificate = [""]', "certificate: [''] has '', which is not a name such as"),
        ('certificate = ["a..b"]', "has 'a..b', which is not a name such as"),
        ('certificate = ["d*.example"]', "has 'd*.example', where * stands for a part"),
        ("token-file = true", "token-file: True is not the path of a file with a token"),
        ('token-file = "none"', "token-file: 'none' is not the path of a file with a token"),
        ('token-file = "/no/such"', "token-file: '/no/such' cannot be read: No such file"),
        ("publish = 1", "publish: 1 is not true, false, or such as {domains = [2]"),
        ("publish = {}", "publish: {} is not true, false, or such as {domains = [2]"),
        ("publish = {domains = [4]}", "has 4, which is kept for control messages"),
        ("publish = {domains = []}", "publish, domains: [] is not a list of numbers"),
        ("publish = {sources = [256]}", "publish, sources: [256] has 256, which is not a number"),
        ("publish = {sources = [true]}", "publish, sources: [True] has True, which is not a"),
        ("publish = {source = [1]}", "publish: unknown key 'source': did you mean sources?"),
        ('subscribe = "yes"', "subscribe: 'yes' is not true or false"),
        ("replay = 0", "replay: 0 is not true or false"),
        ("connections = 0", "connections: 0 is not a whole number, 1 or more"),
        ('connections = "5"', "connections: '5' is not a whole number, 1 or more"),
        ("messages-per-second = 1.5", "messages-per-second: 1.5 is not a whole number"),
        ("messages-per-second = true", "messages-per-second: True is not a whole number"),
        ("bytes-per-second = 0", "bytes-per-second: 0 is not 1 or more"),
        ('bytes-per-second = "10MB"', "bytes-per-second: '10MB' is not a size in bytes"),
        ("bytes-per-second = 1.5", "bytes-per-second: 1.5 is neither a number of bytes nor"),
        ("uids = [1]", "unknown key 'uids': did you mean uid?"),
        ("hold = 1", "unknown key 'hold': known are name, uid, gid, certificate, token-file,"),
    ],
)
def test_what_is_wrong_is_told_with_table_and_key(tmp_path: Path, line: str, what: str) -> None:
    said = wrong(tmp_path, f'[[access]]\nname = "first"\n[[access]]\nname = "desk"\n{line}')
    assert said.startswith("[[access]] 2 (desk)")
    assert what in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("access = true", "[[access]] is to be tables: "),
        ("access = [1]", "[[access]] is to be tables: "),
        ('[access]\nname = "x"', "[[access]] is to be tables: "),
        ("[[access]]\nuid = [0]", "[[access]] 1: name is missing"),
        ('[[access]]\nname = ""', "[[access]] 1 (), name: '' is not a name of 1 to 64"),
        ("[[access]]\nname = 5", "[[access]] 1, name: 5 is not a name of 1 to 64"),
        ('[[access]]\nname = "a\\nb"', "[[access]] 1, name: 'a\\nb' is not a name of 1 to 64"),
        (f'[[access]]\nname = "{"x" * 65}"', "is not a name of 1 to 64"),
        (
            '[[access]]\nname = "x"\n[[access]]\nname = "x"',
            "[[access]] 2 (x), name: another rule has that name already",
        ),
        ('[[acces]]\nname = "x"', "unknown key 'acces': did you mean access?"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, what: str) -> None:
    assert what in wrong(tmp_path, text)


def test_a_token_that_others_may_read_is_none(tmp_path: Path) -> None:
    path = token_file(tmp_path, mode=0o644)
    said = wrong(tmp_path, f'[[access]]\nname = "x"\ntoken-file = "{path}"')
    assert said == (
        f"[[access]] 1 (x), token-file: '{path}' is open to others than its owner and group "
        "(mode 644): chmod 640"
    )


def test_a_rule_s_token_is_enough_to_publish_by_the_side_port(tmp_path: Path) -> None:
    rule = f'[[access]]\nname = "x"\ntoken-file = "{token_file(tmp_path)}"'
    path = config(tmp_path, f"web-publish = true\n{rule}")
    assert settings_from({"config": path}, {}).web_publish
    with pytest.raises(OptionError, match="a token is needed to publish"):
        settings_from({"config": config(tmp_path, "web-publish = true")}, {})
