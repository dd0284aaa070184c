"""Permissions: which rule is for whom, and what it lets them do.

Decides, and does nothing. Where the rules were written, and who keeps to them, it does not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from ipaddress import IPv4Address, ip_address, ip_network

from alphapulse_relay.hub.peer import Identity
from alphapulse_relay.protocol_v2.framing import Rules

ANY_LABEL = "*"
"""What stands for one label of a certificate's name."""
IPV6_PREFIX = 64
"""Bits of an IPv6 address that a host cannot choose by itself (RFC 4862)."""


@dataclass(frozen=True)
class Rule:
    """What some peers may do; ``name`` is its own.

    It is for those of ``uids`` or ``gids``, with a certificate of ``certificates``, or with
    ``token``; for everybody if it names none. ``domains`` and ``sources`` are those that they may
    publish, None for all. ``connections`` at a time, ``messages_per_second`` and
    ``bytes_per_second`` are of one identity, None for no limit.
    """

    name: str
    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    certificates: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)  # a secret
    domains: frozenset[int] | None = None
    sources: frozenset[int] | None = None
    subscribe: bool = True
    replay: bool = True
    connections: int | None = None
    messages_per_second: int | None = None
    bytes_per_second: int | None = None

    @property
    def is_for_everybody(self) -> bool:
        """Whether it names nobody."""
        return not (self.uids or self.gids or self.certificates or self.token)

    @property
    def may_publish(self) -> bool:
        """Whether there is anything that they may publish."""
        return self.domains != frozenset()

    @property
    def may_replay(self) -> bool:
        """Whether they get what was published before they asked."""
        return self.subscribe and self.replay

    def matches(self, identity: Identity, tokens: Sequence[str] = ()) -> bool:
        """Tell whether it is for who that is, and came with these tokens."""
        return (
            self.is_for_everybody
            or identity.uid in self.uids
            or identity.gid in self.gids
            or not self.gids.isdisjoint(identity.gids or ())
            or any(map(self._matches_name, identity.certificate or ()))
            or self.has_token(tokens)
        )

    def _matches_name(self, name: str) -> bool:
        return any(is_like(name, pattern) for pattern in self.certificates)

    def has_token(self, tokens: Sequence[str]) -> bool:
        """Tell whether its token, and no other, is among them."""
        if self.token is None or not tokens:
            return False
        right = self.token.encode()
        return all(compare_digest(token.encode("utf-8", "replace"), right) for token in tokens)

    def narrowed(self, rules: Rules) -> Rules:
        """Return what is accepted of them where the relay accepts what ``rules`` say."""
        return replace(rules, may_domains=self.domains, may_sources=self.sources)

    def account_of(self, identity: Identity, tokens: Sequence[str] = ()) -> str:
        """Return whose limits count: one word for all connections of one identity.

        That is the user on this machine, the certificate's first name, or the token. Who has none
        of these is known by the address alone, as :func:`host_of` has it.
        """
        if self.has_token(tokens):
            return "token"
        if identity.uid is not None:
            return f"uid {identity.uid}"
        if identity.certificate:
            return f"certificate {identity.certificate[0]}"
        return f"address {host_of(identity.address or '')}"


@dataclass(frozen=True)
class AccessRules:
    """All rules, in order: the first that is for a peer decides. Who has none is not let in.

    Nor is one whose groups are not known where it comes to a rule that is for groups: what is
    behind that may allow more.
    """

    rules: tuple[Rule, ...]

    def decide(self, identity: Identity, tokens: Sequence[str] = ()) -> Rule | None:
        """Return the rule for who that is, and came with these tokens; None if there is none."""
        for rule in self.rules:
            if rule.matches(identity, tokens):
                return rule
            if rule.gids and identity.gids is None:
                return None
        return None

    @property
    def have_tokens(self) -> bool:
        """Whether any rule is for who has a token."""
        return any(rule.token for rule in self.rules)

    def know(self, tokens: Sequence[str]) -> bool:
        """Tell whether the tokens are one rule's."""
        return any(rule.has_token(tokens) for rule in self.rules)


def is_like(name: str, pattern: str) -> bool:
    """Tell whether a name has the same labels as the pattern, whose ``*`` stands for any one.

    As in host names (RFC 4343) case does not matter.
    """
    labels, wanted = name.lower().split("."), pattern.lower().split(".")
    return len(labels) == len(wanted) and all(
        label == want or (want == ANY_LABEL and label != "")
        for label, want in zip(labels, wanted, strict=True)
    )


def host_of(address: str) -> str:
    """Return what of an address, with its port, is the same whatever address its host chooses.

    All of loopback is this machine, whatever the family, and all that share an IPv6 prefix may be
    one host. An IPv4 address may be written as one of IPv6 (RFC 4291, 2.5.5.2).
    """
    host = address.rpartition(":")[0]
    try:
        found = ip_address(host)
    except ValueError:
        return host or address
    if not isinstance(found, IPv4Address):
        found = found.ipv4_mapped or found
    if found.is_loopback:
        return "127.0.0.1"
    if isinstance(found, IPv4Address):
        return str(found)
    return str(ip_network((int(found), IPV6_PREFIX), strict=False))
