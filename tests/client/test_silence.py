"""What a silence calls for, by a clock that the test holds."""

from alphapulse_relay.client.silence import ANSWER_WITHIN, ASK_AFTER, Silence, Verdict

START = 1000.0


def test_is_asked_about_once_and_then_given_up():
    silence = Silence(START)
    assert silence.judge(START + ASK_AFTER - 0.1) is Verdict.WAIT
    asked = START + ASK_AFTER
    assert silence.judge(asked) is Verdict.ASK
    assert silence.judge(asked + ANSWER_WITHIN - 0.1) is Verdict.WAIT
    assert silence.judge(asked + ANSWER_WITHIN) is Verdict.GIVE_UP


def test_anything_that_comes_ends_it():
    silence = Silence(START)
    assert silence.judge(START + ASK_AFTER) is Verdict.ASK
    silence.heard(START + ASK_AFTER)
    assert silence.judge(START + ASK_AFTER + ANSWER_WITHIN - 0.1) is Verdict.WAIT


def test_nobody_is_given_up_without_having_been_asked():
    assert Silence(START).judge(START + 10 * (ASK_AFTER + ANSWER_WITHIN)) is Verdict.ASK


def test_tells_when_to_look_again():
    silence = Silence(START)
    assert silence.left(START) == ASK_AFTER
    silence.judge(START + ASK_AFTER)
    assert silence.left(START + ASK_AFTER) == ANSWER_WITHIN
