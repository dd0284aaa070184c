"""Which rule is for whom, and what it lets them do."""

from dataclasses import replace

import pytest

from alphapulse_relay.hub.peer import Identity
from alphapulse_relay.hub.permission import AccessRules, Rule, is_like
from alphapulse_relay.protocol_v2.framing import Rules

TOKEN = "correct-horse.battery"
TRADER = Identity(1, "unix", 10, 1001, 100, "flash", gids=frozenset({100, 7}))
DESK = Identity(2, "tls", address="10.0.0.7:5", certificate=("Desk", "a.desk.example"))
NOBODY = Identity(3, "tcp", address="127.0.0.1:50000")
UNNAMED = Identity(4, "tls", address="10.0.0.8:5", certificate=())


class TestWhoItIsFor:
    @pytest.mark.parametrize("identity", [TRADER, DESK, NOBODY, UNNAMED])
    def test_one_that_names_nobody_is_for_everybody(self, identity: Identity) -> None:
        assert Rule("all").matches(identity)

    @pytest.mark.parametrize(
        ("rule", "fits"),
        [
            (Rule("uid", uids=frozenset({1000, 1001})), True),
            (Rule("uid", uids=frozenset({1000})), False),
            (Rule("gid", gids=frozenset({100})), True),
            (Rule("supplementary", gids=frozenset({7})), True),
            (Rule("gid", gids=frozenset({1001})), False),
            (Rule("any", uids=frozenset({0}), gids=frozenset({7})), True),
            (Rule("certificate", certificates=("*", "*.*.*")), False),
            (Rule("token", token=TOKEN), False),
        ],
    )
    def test_users(self, rule: Rule, fits: bool) -> None:
        assert rule.matches(TRADER) is fits

    @pytest.mark.parametrize("identity", [NOBODY, UNNAMED, DESK])
    def test_who_is_no_user_has_no_uid(self, identity: Identity) -> None:
        assert not Rule("root", uids=frozenset({0}), gids=frozenset({0})).matches(identity)

    def test_certificates_by_any_of_their_names(self) -> None:
        assert Rule("desk", certificates=("*.desk.example",)).matches(DESK)
        assert Rule("desk", certificates=("desk",)).matches(DESK)
        for identity in (NOBODY, UNNAMED):
            assert not Rule("desk", certificates=("*", "*.desk.example")).matches(identity)

    def test_tokens(self) -> None:
        rule = Rule("desk", token=TOKEN)
        assert rule.matches(NOBODY, [TOKEN])
        assert rule.matches(NOBODY, [TOKEN, TOKEN])
        for wrong in ([], [""], [TOKEN[:-1]], [TOKEN + "x"], [TOKEN, "other"], ["\xe4" * 20]):
            assert not rule.matches(NOBODY, wrong)

    def test_a_token_is_not_shown(self) -> None:
        assert TOKEN not in repr(Rule("desk", token=TOKEN))


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("a.desk.example", "a.desk.example", True),
        ("A.Desk.example", "a.desk.Example", True),
        ("a.desk.example", "*.desk.example", True),
        ("a.desk.example", "a.*.example", True),
        ("a.b.desk.example", "*.desk.example", False),
        ("desk.example", "*.desk.example", False),
        (".desk.example", "*.desk.example", False),
        ("a.desk.example.evil", "*.desk.example", False),
        ("xdesk.example", "desk.example", False),
        ("*.example", "desk.example", False),
        ("", "*", False),
    ],
)
def test_a_star_stands_for_one_label(name: str, pattern: str, fits: bool) -> None:
    assert is_like(name, pattern) is fits


class TestOrder:
    FIRST = Rule("first", uids=frozenset({1001}), subscribe=False)
    SECOND = Rule("second", uids=frozenset({1001, 1002}))

    def test_the_first_that_fits_decides(self) -> None:
        assert AccessRules((self.FIRST, self.SECOND)).decide(TRADER) is self.FIRST
        assert AccessRules((self.SECOND, self.FIRST)).decide(TRADER) is self.SECOND

    def test_who_has_none_is_not_let_in(self) -> None:
        assert AccessRules((self.FIRST, self.SECOND)).decide(NOBODY) is None
        assert AccessRules(()).decide(TRADER) is None

    @pytest.mark.parametrize(
        ("rules", "decided"),
        [
            (("for everybody", "of groups"), "for everybody"),
            (("of groups", "for everybody"), None),
            (("of the user", "of groups", "for everybody"), "of the user"),
            (("of its own group", "for everybody"), "of its own group"),
            (("of the user and groups", "for everybody"), "of the user and groups"),
        ],
    )
    def test_whose_groups_are_not_known_is_let_in_before_they_matter(
        self, rules: tuple[str, ...], decided: str | None
    ) -> None:
        known = {
            "for everybody": Rule("for everybody"),
            "of groups": Rule("of groups", gids=frozenset({7}), subscribe=False),
            "of the user": Rule("of the user", uids=frozenset({1001})),
            "of its own group": Rule("of its own group", gids=frozenset({7, 100})),
            "of the user and groups": Rule(
                "of the user and groups", uids=frozenset({1001}), gids=frozenset({7})
            ),
        }
        found = AccessRules(tuple(known[name] for name in rules)).decide(replace(TRADER, gids=None))
        assert (found and found.name) == decided

    def test_a_token_is_known_if_a_rule_has_it(self) -> None:
        rules = AccessRules((self.FIRST, Rule("desk", token=TOKEN)))
        assert rules.know([TOKEN])
        assert not rules.know([])
        assert not rules.know(["another-token-of-16"])


class TestWhatTheyMay:
    def test_publish(self) -> None:
        rules = Rules(aside=True, max_message=1000)
        narrowed = Rule("x", domains=frozenset({1}), sources=frozenset({20})).narrowed(rules)
        assert (narrowed.may_domains, narrowed.may_sources) == ({1}, {20})
        assert (narrowed.max_message, narrowed.domains) == (1000, rules.domains)
        assert Rule("x").narrowed(rules) == rules

    def test_nothing(self) -> None:
        assert not Rule("x", domains=frozenset()).may_publish
        assert Rule("x").may_publish
        assert Rule("x", domains=frozenset({1})).may_publish

    def test_no_history_without_messages(self) -> None:
        assert Rule("x").may_replay
        assert not Rule("x", subscribe=False).may_replay
        assert not Rule("x", replay=False).may_replay


class TestIdentity:
    @pytest.mark.parametrize(
        ("identity", "tokens", "account"),
        [
            (TRADER, [], "uid 1001"),
            (DESK, [], "certificate Desk"),
            (NOBODY, [], "address 127.0.0.1"),
            (UNNAMED, [], "address 10.0.0.8"),
            (Identity(5, "tcp", address="None"), [], "address None"),
            (NOBODY, [TOKEN], "token"),
            (TRADER, ["another-token-of-16"], "uid 1001"),
        ],
    )
    def test_whose_limits_count(self, identity: Identity, tokens: list[str], account: str) -> None:
        assert Rule("x", token=TOKEN).account_of(identity, tokens) == account

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("127.0.0.1", "127.255.0.9"),
            ("127.0.0.1", "::1"),
            ("127.0.0.1", "::ffff:127.0.0.2"),
            ("10.0.0.7", "::ffff:10.0.0.7"),
            ("2001:db8:0:7::1", "2001:db8:0:7:ffff::9"),
            ("fe80::1%eth0", "fe80::2%eth0"),
        ],
    )
    def test_addresses_that_one_host_has_are_one(self, one: str, other: str) -> None:
        assert by_address(one) == by_address(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("10.0.0.7", "10.0.0.8"),
            ("::ffff:10.0.0.7", "::ffff:10.0.0.8"),
            ("2001:db8:0:7::1", "2001:db8:0:8::1"),
            ("::1", "::2"),
            ("127.0.0.1", "128.0.0.1"),
        ],
    )
    def test_others_are_not(self, one: str, other: str) -> None:
        assert by_address(one) != by_address(other)


def by_address(host: str) -> str:
    """Return whose limits count of who is known by its address alone."""
    return Rule("x").account_of(Identity(1, "tcp", address=f"{host}:5000"))
