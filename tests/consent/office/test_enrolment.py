"""Enrolment by telephone, with human prompts as the answers: always pending, two operators hear it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consent.checks.checklist import Checks
from consent.checks.sound import RATE_HZ, Floats, read
from consent.errors import ChallengeError, GrantRefused, OperatorError, RegistrationError
from consent.office.enrolment import LONGEST_WORDS, Enrolment, by_code
from consent.statements.lexicon import LEXICA
from tests.consent.conftest import Desk
from tests.needs import need_sounds


def answers(count: int) -> list[Floats]:
    """Different human prompts of a few seconds each."""
    folder = need_sounds("en_US_f_Allison")
    sizes = sorted(path for path in Path(folder).glob("*.wav") if 50_000 < path.stat().st_size < 90_000)
    return [read(path).pcm for path in sizes[:count]]


def answered(enrolment: Enrolment) -> Enrolment:
    for at, pcm in enumerate(answers(len(enrolment.lines))):
        assert enrolment.heard(at, pcm, 8_000) is None
    return enrolment


@pytest.fixture
def enrolment(desk: Desk) -> Enrolment:
    challenge = desk.challenge(by_phone=True)
    desk.submission(challenge)  # the double of the recogniser hears this statement
    return by_code(desk.office, challenge.challenge_id)


def test_a_caller_dials_the_code_repeats_the_lines_and_is_held_for_two_operators(
    desk: Desk, enrolment: Enrolment
) -> None:
    done = answered(enrolment).finish("jane", pin="482913")
    assert done.state == "pending", "even though every check of the doubles passed"
    assert desk.review("bob") == "pending"
    with pytest.raises(OperatorError, match="bob approved this voice already"):
        desk.review("bob")
    with pytest.raises(OperatorError, match="rosa and bob were made operators by one founder, bob"):
        desk.review("rosa")
    with pytest.raises(GrantRefused):
        desk.grant()
    assert desk.review("alice") == "active", "a registrar may be the second: the gateway took the voice"
    record = desk.office.records.open(desk.office.standing_of("jane"))  # type: ignore[arg-type]
    assert record.claims["registrar"] == "gateway"
    assert record.claims["statement"]["challenge_issued_by"] == "alice"
    assert record.claims["references"][0]["source_hz"] == 8_000
    assert record.claims["references"][0]["text"] == " ".join(LEXICA["en"].sentences)
    desk.grant()


def test_without_a_recogniser_a_callers_words_go_to_the_two_operators(
    desk: Desk, enrolment: Enrolment, tmp_path: Path
) -> None:
    loaded = Checks.load(tmp_path, tmp_path / "marks", tmp_path / "models")
    desk.checks.recogniser, desk.checks.missing = loaded.recogniser, loaded.missing
    done = answered(enrolment).finish("jane")
    assert done.state == "pending"
    (held,) = [finding for finding in done.findings if finding.check == "statement words"]
    assert held.verdict == "review"
    assert "voicegate models get whisper-base" in held.detail


@pytest.mark.parametrize("spoken", list(LEXICA))
def test_the_lines_are_short_and_say_the_whole_statement(desk: Desk, spoken: str) -> None:
    enrolment = Enrolment(desk.office, desk.challenge(replace(Desk.TERMS, spoken=spoken), by_phone=True))
    said = [line.say for line in enrolment.lines if line.kind == "statement"]
    assert " ".join(said) == enrolment.challenge.statement.text
    assert all(len(line.split()) <= LONGEST_WORDS for line in said)
    assert 5 <= len(said) <= 12
    assert len([line for line in enrolment.lines if line.kind == "reference"]) == 4


def test_a_bad_take_is_asked_for_again_in_words(enrolment: Enrolment) -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 3 * RATE_HZ).astype(np.float32)
    good = answers(1)[0]
    noisy = good + np.random.default_rng(1).normal(0, float(np.sqrt((good**2).mean())), len(good))
    assert "did not hear you" in str(enrolment.heard(0, noise, 8_000))
    assert "did not hear you" in str(enrolment.heard(0, np.zeros(RATE_HZ, np.float32), 8_000))
    assert "too noisy" in str(enrolment.heard(0, noisy.astype(np.float32), 8_000))
    assert "too loud" in str(enrolment.heard(0, np.clip(good * 30, -1, 1), 8_000))
    assert "too long" in str(enrolment.heard(0, np.tile(good, 60), 8_000))
    assert enrolment.missing == tuple(range(len(enrolment.lines)))
    assert enrolment.heard(0, good, 8_000) is None
    assert 0 not in enrolment.missing


def test_a_call_that_ends_early_leaves_nothing(desk: Desk, enrolment: Enrolment) -> None:
    enrolment.heard(0, answers(1)[0], 8_000)
    with pytest.raises(RegistrationError, match="line 2 was not recorded"):
        enrolment.finish("jane")
    assert desk.office.look().voices == {}


def test_only_codes_for_the_telephone_open_and_only_once_and_in_time(
    desk: Desk, enrolment: Enrolment
) -> None:
    with pytest.raises(ChallengeError, match="not valid now"):
        by_code(desk.office, desk.challenge().challenge_id)
    with pytest.raises(ChallengeError, match="not valid now"):
        by_code(desk.office, "1234567890")
    answered(enrolment).finish("jane")
    with pytest.raises(ChallengeError, match="not valid now"):
        by_code(desk.office, enrolment.challenge.challenge_id)
    later = desk.challenge(by_phone=True)
    desk.clock.now += 1801
    with pytest.raises(ChallengeError, match="not valid now"):
        by_code(desk.office, later.challenge_id)


def test_the_gateway_takes_no_challenge_that_is_not_for_the_telephone(desk: Desk) -> None:
    with pytest.raises(OperatorError, match="not for the telephone"):
        desk.office.registrar.submit(desk.submission(), None)
