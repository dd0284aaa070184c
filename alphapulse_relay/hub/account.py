"""Accounts: what one identity may do by its rule, and how much of that it has used.

Knows the identity's connections, and holds them while they have sent too much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from alphapulse_relay.hub.allowance import Allowance
from alphapulse_relay.hub.peer import Hold, Identity, Peer, Refusal

if TYPE_CHECKING:
    from alphapulse_relay.hub.permission import AccessRules, Rule
    from alphapulse_relay.protocol_v2.framing import Rules

NO_RULE = "no access rule lets you in"
TOO_MANY = "you have as many connections as the access rules allow: close one, or try again later"

IDLE_MAX = 100
"""Accounts from which on those that are idle are looked for: some 100 KB."""


class RefusedError(Exception):
    """A peer that the access rules do not let in; ``str()`` is for the peer."""

    def __init__(self, reason: Refusal, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Account:
    """One identity's under one rule; ``rules`` are what is accepted of what it publishes.

    ``on_held`` is called when its connections are held since they have sent too much. What was owed
    ``before``, by the rule as it was, still is.
    """

    def __init__(
        self,
        clock: IReactorTime,
        rule: Rule,
        rules: Rules,
        on_held: Callable[[], None],
        before: Account | None = None,
    ) -> None:
        self.rule = rule
        self.rules = rules
        self.peers: dict[Peer, None] = {}
        self._clock = clock
        self._on_held = on_held
        now = clock.seconds()
        messages, bytes_ = (before._messages, before._bytes) if before else (None, None)
        self._messages: Allowance | None = _allowance(rule.messages_per_second, messages, now)
        self._bytes: Allowance | None = _allowance(rule.bytes_per_second, bytes_, now)
        self._allowances = [each for each in (self._messages, self._bytes) if each is not None]
        self._release: IDelayedCall | None = None

    @property
    def limited(self) -> bool:
        """Whether it may send only so much."""
        return bool(self._allowances)

    @property
    def held(self) -> bool:
        """Whether its connections are held."""
        return self._release is not None

    @property
    def full(self) -> bool:
        """Whether it has as many connections as it may."""
        most = self.rule.connections
        return most is not None and len(self.peers) >= most

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost without it."""
        now = self._clock.seconds()
        return not self.peers and all(each.is_whole(now) for each in self._allowances)

    def join(self, peer: Peer) -> None:
        """Take a connection in."""
        self.peers[peer] = None
        if self.held:
            peer.hold(Hold.LIMIT)
        else:
            self._look()

    def leave(self, peer: Peer) -> None:
        """Let a connection go; what it owes stays."""
        del self.peers[peer]
        if self.held:
            peer.release(Hold.LIMIT)
            if not self.peers:
                self._cancel()

    def charge(self, length: int, messages: int) -> None:
        """Take note that one of the connections has sent so many bytes, so many messages."""
        now = self._clock.seconds()
        if self._messages is not None:
            self._messages.take(messages, now)
        if self._bytes is not None:
            self._bytes.take(length, now)
        if not self.held:
            self._look()

    def _look(self) -> None:
        """Hold the connections if something is owed."""
        if self.peers and (owed := self._owed_seconds()):
            self._release = self._clock.callLater(owed, self._on_paid)
            self._on_held()
            for peer in self.peers:
                peer.hold(Hold.LIMIT)

    def _owed_seconds(self) -> float:
        now = self._clock.seconds()
        return max((each.owed_seconds(now) for each in self._allowances), default=0.0)

    def _on_paid(self) -> None:
        """Read from the connections again, unless more has come from them meanwhile."""
        owed = self._owed_seconds()
        self._release = self._clock.callLater(owed, self._on_paid) if owed else None
        if not owed:
            for peer in tuple(self.peers):
                peer.release(Hold.LIMIT)

    def _cancel(self) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None


class Accounts:
    """All accounts of a relay that accepts what ``rules`` say. Without ``access`` there are none.

    ``on_held`` is told the rule by which connections are held.
    """

    def __init__(self, clock: IReactorTime, rules: Rules, on_held: Callable[[Rule], None]) -> None:
        self.access: AccessRules | None = None
        self._clock = clock
        self._rules = rules
        self._on_held = on_held
        self._narrowed: dict[Rule, Rules] = {}
        self._accounts: dict[tuple[str, str], Account] = {}
        """By the rule's name: another limit is no reason to forget what is owed."""
        self._full = IDLE_MAX  # accounts at which those that are idle are dropped

    @property
    def held(self) -> int:
        """How many connections are held since their identity has sent too much."""
        return sum(len(each.peers) for each in self._accounts.values() if each.held)

    def change(self, access: AccessRules | None) -> None:
        """Decide by other rules from now on."""
        self.access = access
        self._narrowed.clear()

    def decide(self, identity: Identity, tokens: Sequence[str]) -> Account | None:
        """Return the account of who that is, and came with these tokens; None without any rules.

        Raises :class:`RefusedError`.
        """
        if self.access is None:
            return None
        rule = self.access.decide(identity, tokens)
        if rule is None:
            raise RefusedError(Refusal.FORBIDDEN, NO_RULE)
        key = rule.name, rule.account_of(identity, tokens)
        found = self._accounts.get(key)
        if found is None and len(self._accounts) >= self._full:
            self._drop_idle()
        if found is None or found.rule != rule:
            found = self._accounts[key] = self._open(rule, found)
        return found

    def admit(self, identity: Identity, tokens: Sequence[str]) -> Account | None:
        """Do as :meth:`decide`, for a new connection: one more must be allowed."""
        account = self.decide(identity, tokens)
        if account is not None and account.full:
            raise RefusedError(Refusal.TOO_MANY_OF_IDENTITY, TOO_MANY)
        return account

    def _open(self, rule: Rule, before: Account | None) -> Account:
        # One object for all of a rule: compiled code loads them anew for another.
        if rule not in self._narrowed:
            self._narrowed[rule] = rule.narrowed(self._rules)
        rules = self._narrowed[rule]
        return Account(self._clock, rule, rules, lambda: self._on_held(rule), before)

    def _drop_idle(self) -> None:
        for key in [key for key, account in self._accounts.items() if account.idle]:
            del self._accounts[key]
        # Twice as many as are left: so each new one has paid for a look at one or two.
        self._full = max(IDLE_MAX, 2 * len(self._accounts))


def _allowance(rate: int | None, before: Allowance | None, now: float) -> Allowance | None:
    if rate is None:
        return None
    if before is None:
        return Allowance(rate)
    before.change_rate(rate, now)
    return before
