"""What a transcript must hold: the critical parts word for word, the rest nearly."""

from __future__ import annotations

import json
import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import RegistrationError
from consent.office.registration import VOICEPRINT_S
from consent.statements.comparison import Heard, HeardText
from consent.statements.comparison import match as match_heard
from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import tokens
from consent.statements.statement import Statement, Terms, render

LANGUAGES = list(LEXICA)


def match(wanted: Statement, text: str) -> Heard:
    """By a recogniser that is sure of every word."""
    return match_heard(wanted, HeardText(text))


def statement(spoken: str = "en") -> Statement:
    terms = Terms("Jane Doe", "Acme", ("support",), (spoken,), date(2027, 6, 30), spoken=spoken)
    return render(terms, LEXICA[spoken].words[:4], [9, 0, 3, 2])


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_the_statement_itself_is_heard_in_every_language(spoken: str) -> None:
    said = statement(spoken)
    assert match(said, said.text).said
    for field in ("Jane Doe", "Acme", LEXICA[spoken].words[0], LEXICA[spoken].digits[9], "2027"):
        assert field in said.text


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_no_statement_holds_a_denial_and_no_word_is_twice(spoken: str) -> None:
    lexicon = LEXICA[spoken]
    assert not lexicon.denials & set(tokens(statement(spoken).text, spoken))
    assert len(set(lexicon.words)) == len(lexicon.words) >= 60
    assert not set(lexicon.words) & set(lexicon.digits)
    assert len(lexicon.digits) == 10
    assert len(lexicon.months) == 12


def test_digits_are_heard_however_they_are_written() -> None:
    said = statement()
    assert match(said, said.text.replace("nine, zero, three, two", "9-0-3-2.")).said
    assert match(said, said.text.replace("nine, zero, three, two", "9032")).said
    assert match(said, said.text.replace("June 30, 2027", "June 30th, 2027")).said
    assert not match(said, said.text.replace("nine, zero, three, two", "9023")).said


def test_small_slips_outside_the_critical_parts_are_forgiven_many_are_not() -> None:
    said = statement()
    assert match(said, said.text.replace("and this is my own voice", "and this is my voice")).said
    heard = match(
        said, said.text.replace("I know that I can take this back at any time", "bla bla bla bla bla")
    )
    assert not heard.said
    assert "other words differ" in heard.why


@pytest.mark.parametrize(
    "denial", ["I do not consent", "I never consent", "I can't consent", "I consent to nothing"]
)
def test_a_denial_is_never_a_consent(denial: str) -> None:
    said = statement()
    heard = match(said, said.text.replace("I consent", denial))
    assert not heard.said


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_no_sentence_of_the_statement_can_be_left_out(spoken: str) -> None:
    said = statement(spoken)
    sentences = re.split(r"(?<=[.])(?<!30[.]) ", said.text)
    assert len(sentences) == 8
    for sentence in sentences:
        assert not match(said, said.text.replace(sentence, "")).said, sentence


@pytest.mark.parametrize(
    ("spoken", "voiceprint", "listeners", "kept", "back"),
    [
        ("en", "a voiceprint", "two operators", "until I have them erased", "at any time"),
        ("de", "einem Stimmabdruck", "zwei Prüfer", "bis ich sie löschen lasse", "jederzeit"),
        ("fr", "une empreinte vocale", "deux opérateurs", "je les fasse effacer", "à tout moment"),
        ("es", "una huella de voz", "dos operadores", "yo las haga borrar", "en cualquier momento"),
        ("it", "un'impronta vocale", "due operatori", "richiesta di cancellarle", "in qualsiasi momento"),
    ],
)
def test_it_names_voiceprints_listeners_and_keeping(
    spoken: str, voiceprint: str, listeners: str, kept: str, back: str
) -> None:
    said = statement(spoken)
    critical = " ".join(part.text for part in said.parts if part.critical)
    for words in (voiceprint, listeners, kept):
        assert words in critical, "it must be heard word for word"
    assert back in said.text
    assert VOICEPRINT_S == 30 * 86_400.0, "thirty days, as the statement has it"
    assert said.version == f"2026-12/{spoken}"


def test_a_described_use_is_read_in_place_of_its_word() -> None:
    uses = (("support", "answering questions about orders"),)
    terms = Terms("Jane Doe", "Acme", ("support", "news"), ("en",), date(2027, 6, 30), uses=uses)
    terms.check(date(2026, 12, 2))
    said = render(terms, LEXICA["en"].words[:4], [9, 0, 3, 2])
    assert "for answering questions about orders and news, in English" in said.text
    assert not match(said, said.text.replace("answering questions about orders", "support")).said
    assert Terms.from_json(json.loads(json.dumps(terms.to_json()))) == terms


@pytest.mark.parametrize(
    "use",
    [
        "", "orders", "x " * 20, "selling things without asking", "never mind", "a b\nc d",
        "orders. I refuse",
        "orders {name}", " about orders", "about orders ", "about  orders", "ab\u202ecd ef", "x" * 130 + " y",
    ],
)  # fmt: skip
def test_a_use_that_says_too_little_or_something_else_is_refused(use: str) -> None:
    terms = Terms("Jane Doe", "Acme", ("support",), ("en",), date(2027, 6, 30), uses=(("support", use),))
    with pytest.raises(RegistrationError):
        terms.check(date(2026, 12, 2))


@pytest.mark.parametrize("uses", [(("news", "reading the news"),), (("support", "a b"), ("support", "c d"))])
def test_only_a_purpose_is_described_and_only_once(uses: tuple[tuple[str, str], ...]) -> None:
    terms = Terms("Jane Doe", "Acme", ("support",), ("en",), date(2027, 6, 30), uses=uses)
    with pytest.raises(RegistrationError, match="is described"):
        terms.check(date(2026, 12, 2))


def test_terms_that_were_signed_before_uses_had_words_keep_their_hash() -> None:
    terms = Terms("Jane Doe", "Acme", ("support",), ("en",), date(2027, 6, 30))
    old = {
        "name": "Jane Doe", "company": "Acme", "purposes": ["support"], "languages": ["en"],
        "until": "2027-06-30", "dialplans": [], "spoken": "en",
    }  # fmt: skip
    assert json.loads(json.dumps(terms.to_json())) == old
    assert Terms.from_json(old) == terms


def test_a_word_between_the_critical_words_is_refused() -> None:
    said = statement()
    assert not match(said, said.text.replace("Jane Doe", "Jane Mary Doe")).said
    assert not match(said, said.text.replace("I consent", "I hardly consent")).said


def test_silence_says_nothing() -> None:
    assert not match(statement(), "").said


SAID = statement()
CRITICAL = [part for part in SAID.parts if part.critical]


@settings(max_examples=80)
@given(st.data())
def test_any_critical_word_dropped_doubled_or_changed_is_refused_or_harmless(data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(CRITICAL))
    words = part.text.split()
    at = data.draw(st.integers(0, len(words) - 1))
    how = data.draw(st.sampled_from(["drop", "change"]))
    replaced = words[:at] + (["marzipan"] if how == "change" else []) + words[at + 1 :]
    text = "".join(" ".join(replaced) if p is part else p.text for p in SAID.parts)
    assert not match(SAID, text).said


@settings(max_examples=80)
@given(st.text(max_size=400))
def test_no_text_of_chance_says_the_statement_and_none_breaks_it(text: str) -> None:
    assert not match(SAID, text).said
