"""The table of the bridge's options, and how it stands beside the relay's."""

import re

import pytest

from alphapulse_relay.bridge.option_table import BRIDGE, STATE_BESIDE
from alphapulse_relay.option_table import CONFIG, RELAY, Option

NAMED = (*BRIDGE.options, CONFIG)


def test_names_are_given_once() -> None:
    names = [option.name for option in NAMED]
    assert len(set(names)) == len(names)
    assert list(BRIDGE.by_name) == names[:-1]


@pytest.mark.parametrize("option", NAMED, ids=lambda option: option.name)
def test_is_written_as_each_source_writes_names(option: Option) -> None:
    assert re.fullmatch("[a-z]+(-[a-z]+)*", option.name)
    assert BRIDGE.variable(option) == "SIGNAL_RELAY_BRIDGE_" + option.field.upper()


def test_no_variable_is_the_relays_too() -> None:
    """The bridge's begin with what the relay's begin with."""
    of_relay = {RELAY.variable(option) for option in (*RELAY.options, CONFIG)}
    assert of_relay.isdisjoint(BRIDGE.variable(option) for option in NAMED)


@pytest.mark.parametrize("option", BRIDGE.options, ids=lambda option: option.name)
def test_the_default_and_what_a_shell_offers_are_accepted(option: Option) -> None:
    for text in (option.default, *option.words):
        if text != STATE_BESIDE:
            option.read(text)


def test_a_switch_is_true_or_false() -> None:
    for option in BRIDGE.options:
        assert option.switch == (bool in option.types)
