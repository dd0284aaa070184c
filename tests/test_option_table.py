"""The table of options: each is there once, by names that no other has, and can be explained."""

import re

import pytest

from alphapulse_relay.option_table import CONFIG, JOURNAL_BESIDE, OPTIONS, RELAY, Option

NAMED = (*OPTIONS, CONFIG)


def test_names_are_given_once():
    names = [option.name for option in NAMED]
    short = [option.short for option in NAMED if option.short]
    assert len(set(names)) == len(names)
    assert len(set(short)) == len(short)
    assert list(RELAY.by_name) == [option.name for option in OPTIONS]


@pytest.mark.parametrize("option", NAMED, ids=lambda option: option.name)
def test_is_written_as_each_source_writes_names(option: Option):
    assert re.fullmatch("[a-z]+(-[a-z]+)*", option.name)
    assert RELAY.variable(option) == "SIGNAL_RELAY_" + option.name.upper().replace("-", "_")
    assert option.field.isidentifier()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_default_is_accepted(option: Option):
    if option.default and option.default != JOURNAL_BESIDE:
        option.read(option.default)
    assert option.help == f"{option.meaning} [default: {option.default or 'none'}]"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_what_a_shell_offers_is_accepted(option: Option):
    for word in option.words:
        option.read(word)


def test_a_switch_is_true_or_false():
    for option in OPTIONS:
        assert option.switch == (bool in option.types)
