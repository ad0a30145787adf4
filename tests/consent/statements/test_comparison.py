"""What a transcript may differ in, and what no reading may add, leave out, repeat or put elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.statements.comparison import ADDED, NEAR, Heard, HeardText
from consent.statements.comparison import match as match_heard
from consent.statements.lexicon import LEXICA
from consent.statements.spoken_words import fold, tokens
from consent.statements.statement import Statement, Terms, render

LANGUAGES = list(LEXICA)


def match(wanted: Statement, text: str) -> Heard:
    """By a recogniser that is sure of every word."""
    return match_heard(wanted, HeardText(text))


DIGITS = [9, 0, 3, 2]


def statement(spoken: str = "en", name: str = "Jane Doe", company: str = "Acme") -> Statement:
    terms = Terms(name, company, ("support",), (spoken,), date(2027, 6, 30), spoken=spoken)
    return render(terms, LEXICA[spoken].words[:4], DIGITS)


def words(spoken: str) -> str:
    return ", ".join(LEXICA[spoken].words[:4])


def digits(spoken: str, shown: list[int] | None = None) -> str:
    return ", ".join(LEXICA[spoken].digits[digit] for digit in shown or DIGITS)


# ── what a recogniser may write otherwise ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_numbers_are_one_in_words_and_in_digits(spoken: str) -> None:
    lexicon = LEXICA[spoken]
    assert len(lexicon.numbers) == 90
    for number, said in enumerate(lexicon.numbers, 10):
        for form in (said, said.replace("-", " "), f"{number}", f"{number}."):
            assert tokens(form, spoken) == list(str(number)), form
        for year in lexicon.years:
            assert tokens(year.format(n=said), spoken) == list(str(2000 + number))


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_no_word_of_chance_is_a_number_or_a_hesitation(spoken: str) -> None:
    lexicon = LEXICA[spoken]
    for word in lexicon.words:
        assert tokens(word, spoken) == [fold(word)]
    assert not lexicon.hesitations & {*lexicon.words, *lexicon.digits, *lexicon.denials}


@pytest.mark.parametrize(
    ("spoken", "said", "written"),
    [
        ("en", "eighteen", "18"),
        ("en", "thirty", "30"),
        ("en", "two operators", "2 operators"),
        ("en", "June 30, 2027", "June 30th, twenty twenty-seven"),
        ("en", "June 30, 2027", "June 30th, two thousand and twenty-seven"),
        ("de", "achtzehn", "18"),
        ("de", "zwei Prüfer", "2 Prüfer"),
        ("de", "30. Juni 2027", "30. Juni zweitausendsiebenundzwanzig"),
        ("fr", "dix-huit", "18"),
        ("fr", "deux opérateurs", "2 opérateurs"),
        ("es", "dieciocho", "18"),
        ("es", "30 de junio de 2027", "treinta de junio de dos mil veintisiete"),
        ("it", "diciotto", "18"),
        ("it", "30 giugno 2027", "trenta giugno duemilaventisette"),
    ],
)
def test_what_is_written_otherwise_is_the_same(spoken: str, said: str, written: str) -> None:
    wanted = statement(spoken)
    assert said in wanted.text
    heard = match(wanted, wanted.text.replace(said, written))
    assert (heard.said, heard.doubt, heard.slips) == (True, "", 0.0)


def test_the_first_of_a_month_is_a_one() -> None:
    for spoken, text in (("en", "June 1st"), ("fr", "1er juin"), ("it", "1º giugno")):
        assert "1" in tokens(text, spoken)
        assert len(tokens(text, spoken)) == 2


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_hesitations_are_nothing_anywhere(spoken: str) -> None:
    wanted = statement(spoken)
    for um in LEXICA[spoken].hesitations:
        heard = match(wanted, f" {um}, ".join(wanted.text.split(" ", 40)))
        assert (heard.said, heard.doubt) == (True, ""), um


def test_who_is_called_like_a_hesitation_must_say_their_name() -> None:
    wanted = statement(name="Jane Um")
    assert match(wanted, wanted.text).said
    assert not match(wanted, wanted.text.replace("Jane Um", "Jane")).said


def test_spaces_within_what_must_be_exact_are_not_heard() -> None:
    wanted = statement(company="Blue Harbor")
    for written in ("Blueharbor", "Blue har bor", "BLUE-HARBOR"):
        heard = match(wanted, wanted.text.replace("Blue Harbor", written))
        assert (heard.said, heard.doubt, heard.slips) == (True, "", 0.0)
    for written in ("Blueharbour", "Blue hair bor", "Blue", "Harbor Blue"):
        assert not match(wanted, wanted.text.replace("Blue Harbor", written)).said


# ── what no reading may do ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spoken", LANGUAGES)
@pytest.mark.parametrize("at", range(4))
def test_a_digit_or_a_word_said_twice_left_out_or_changed_is_refused(spoken: str, at: int) -> None:
    wanted = statement(spoken)
    lexicon = LEXICA[spoken]
    chance, shown = list(lexicon.words[:4]), list(DIGITS)
    others = (
        (chance[: at + 1] + chance[at:], shown),
        (chance[:at] + chance[at + 1 :], shown),
        ([*chance[:at], lexicon.words[9], *chance[at + 1 :]], shown),
        ([*chance, lexicon.words[9]], shown),
        ([lexicon.words[9], *chance], shown),
        (chance, shown[: at + 1] + shown[at:]),
        (chance, shown[:at] + shown[at + 1 :]),
        (chance, [*shown[:at], (shown[at] + 1) % 10, *shown[at + 1 :]]),
        (chance, [*shown, 7]),
        (chance, [7, *shown]),
        ([chance[at - 1], *chance[:at][:-1], *chance[at:]] if at > 1 else chance[::-1], shown),
        (chance, shown[::-1]),
    )
    for other_words, other_digits in others:
        text = wanted.text.replace(words(spoken), ", ".join(other_words))
        text = text.replace(digits(spoken), digits(spoken, other_digits))
        assert text != wanted.text
        assert not match(wanted, text).said, text[-120:]
        assert not match(
            wanted, text.replace(digits(spoken, other_digits), "".join(map(str, other_digits)))
        ).said


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_the_sentences_in_another_order_are_refused(spoken: str) -> None:
    wanted = statement(spoken)
    sentences = re.split(r"(?<=[.])(?<!30[.]) ", wanted.text)
    for at in range(len(sentences) - 1):
        other = [*sentences[:at], sentences[at + 1], sentences[at], *sentences[at + 2 :]]
        assert not match(wanted, " ".join(other)).said, sentences[at]


@pytest.mark.parametrize("spoken", LANGUAGES)
def test_two_statements_one_after_the_other_are_refused(spoken: str) -> None:
    wanted = statement(spoken)
    for other in (wanted, statement(spoken, company="Delta")):
        assert not match(wanted, f"{wanted.text} {other.text}").said
        assert not match(wanted, f"{other.text} {wanted.text}").said
    half = wanted.text[: len(wanted.text) // 2]
    assert not match(wanted, f"{half} {wanted.text}").said


def test_a_word_too_many_beside_what_must_be_exact_is_for_people_to_hear() -> None:
    wanted = statement()
    for said, other in (
        ("I consent to", "I suppose I consent to"),
        ("I consent to", "I consent maybe to"),
        ("to Acme making", "to Acme Limited making"),
        ("for support", "for sales support"),
        ("support, in", "support sales, in"),
        ("in English", "in English mostly"),
        ("My name is Jane Doe", "My name is Mister Jane Doe"),
    ):
        assert said in wanted.text or said == "in English"
        heard = match(wanted, wanted.text.replace(said, other))
        assert not heard.said or heard.doubt, other


def test_words_before_and_after_the_statement_are_for_people_to_hear_and_a_sentence_is_refused() -> None:
    wanted = statement()
    for text in (f"Okay. {wanted.text}", f"{wanted.text} Just kidding.", f"{wanted.text} Against my will."):
        heard = match(wanted, text)
        assert heard.said
        assert "the statement" in heard.doubt
    for aside in ("All of this is a joke.", "They told me to read this."):
        assert len(aside.split()) >= ADDED
        assert "does not have" in match(wanted, f"{wanted.text} {aside}").why
        assert "does not have" in match(wanted, f"{aside} {wanted.text}").why
        assert not match(wanted, wanted.text.replace(". I agree", f". {aside} I agree", 1)).said


def test_another_number_anywhere_is_for_people_to_hear() -> None:
    wanted = statement()
    for said, other in (("thirty days", "ninety days"), ("eighteen years", "80 years"), ("thirty", "dirty")):
        heard = match(wanted, wanted.text.replace(said, other))
        assert heard.said
        assert heard.doubt


def test_a_text_without_an_end_is_not_compared() -> None:
    wanted = statement()
    assert "far more words" in match(wanted, "and " * 1_000_000).why


# ── what a recogniser does not know ──────────────────────────────────────────────────────────────────────


def heard_as(said: str, other: str, sure: float) -> Heard:
    """The statement with some of its words heard as others, and how sure the recogniser is of these."""
    wanted = statement()
    assert said in wanted.text
    words = tuple((word, sure) for word in other.split())
    return match_heard(wanted, HeardText(wanted.text.replace(said, other), words))


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ("Jane Doe", "Jain Duh"),
        ("Acme making", "ask me making"),
        ("a voiceprint", "a voice-apprent"),
        ("a voiceprint", "avoid separation"),
        ("apple, anchor", "apple, anger"),
        ("until I have them erased", "until I have them raised"),
    ],
)
def test_a_word_misheard_and_not_surely_is_for_people_and_surely_is_refused(said: str, other: str) -> None:
    held = heard_as(said, other, 0.4)
    assert (held.said, held.why) == (True, "")
    assert "which was heard as" in held.doubt
    assert not heard_as(said, other, 0.95).said
    assert not match(statement(), statement().text.replace(said, other)).said


def test_of_names_a_recogniser_must_be_surer() -> None:
    assert heard_as("Jane Doe", "Jane Roe", 0.8).doubt
    assert not heard_as("Jane Doe", "Jane Roe", 0.92).said
    assert not heard_as("apple, anchor", "apple, anger", 0.8).said


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ("Jane Doe", "Peter Novak"),
        ("Jane Doe", "Jane"),
        ("Acme making", "making"),
        ("apple, anchor", "apple, zebra"),
        ("I consent", "I listen"),
        ("nine, zero", "mine, zero"),
        ("nine, zero", "five, zero"),
        ("nine, zero", "nine, nine, zero"),
        ("2027", "2037"),
        ("two operators", "few operators"),
    ],
)
def test_what_is_not_alike_a_digit_or_missing_is_refused_however_unsure(said: str, other: str) -> None:
    assert not heard_as(said, other, 0.01).said


def test_doubts_add_up_with_what_else_is_wrong() -> None:
    wanted = statement()
    text = wanted.text.replace("Jane Doe", "Jain Duh")
    unsure = (("Jain", 0.2), ("Duh", 0.2))
    assert match_heard(wanted, HeardText(text, unsure)).doubt
    assert not match_heard(wanted, HeardText(text.replace("nine", "four"), unsure)).said
    both = match_heard(wanted, HeardText(f"Okay. {text}", unsure)).doubt
    assert "jain duh" in both
    assert "'okay' before the statement" in both


def test_words_put_in_around_one_that_might_be_the_statements_own_are_together() -> None:
    text = statement("fr").text
    assert match(statement("fr"), text.replace("J'ai au", "J'ai donc bien plus au")).said
    heard = match(statement("fr"), text.replace("J'ai au", "J'ai donc bien au plus au"))
    assert heard.why == "the statement does not have 'donc bien au plus'"


def test_words_put_in_around_several_of_the_statements_own_are_together() -> None:
    text = statement().text
    heard = match(statement(), text.replace("my voice and", "my voice yet my voice yet and"))
    assert heard.why.startswith("the statement does not have"), heard


# ── what the sound says of what was not heard ────────────────────────────────────────────────────────────


class Sound:
    """Double: a sound that all words fit so much worse than those that were heard."""

    def __init__(self, heard: str, worse: float) -> None:
        self._heard = heard
        self._worse = worse
        self.asked: list[str] = []

    def __call__(self, _piece: int, texts: Sequence[str]) -> list[float]:
        self.asked += texts
        return [-1.0 - self._worse * (text != self._heard) for text in texts]


def weighed(wanted: Statement, text: str, worse: float, sure: float = 1.0) -> Heard:
    words = tuple((word, sure) for word in text.split())
    return match_heard(wanted, HeardText(text, words), Sound(text, worse))


MISHEARD = [
    ("Acme", "acting", "words"),
    ("Jane Doe", "John Due", "words"),
    ("I consent", "I can send", "words"),
    ("support", "a port", "words"),
    ("30, 2027", "30, 2007", "digits"),
    (LEXICA["en"].words[1], "ankle", "drawn"),
]


@pytest.mark.parametrize(("said", "heard", "bound"), MISHEARD)
def test_what_fits_the_sound_nearly_as_well_goes_to_people(said: str, heard: str, bound: str) -> None:
    wanted, near = statement(), getattr(NEAR, bound)
    text = wanted.text.replace(said, heard)
    assert not match_heard(wanted, HeardText(text)).said, "by what was heard alone"
    held = weighed(wanted, text, near - 0.5)
    assert held.said
    assert "which was heard as" in held.doubt
    far = weighed(wanted, text, near + 0.5)
    assert not far.said
    assert "is missing" in far.why


def test_the_sound_is_not_asked_about_what_was_heard() -> None:
    wanted = statement()
    sound = Sound(wanted.text, 0.0)
    heard = match_heard(wanted, HeardText(wanted.text), sound)
    assert (heard.said, heard.doubt, sound.asked) == (True, "", [])


@pytest.mark.parametrize(
    "changed",
    [
        ("nine", "four"), ("nine, zero", "nine, nine, zero"), ("zero, three", "three, zero"),
        (words("en"), ", ".join([*LEXICA["en"].words[4:5], *LEXICA["en"].words[1:4]])),
        (words("en"), ", ".join(LEXICA["en"].words[at] for at in (1, 0, 2, 3))),
        ("I consent", "I do not consent"), ("deleted", "never deleted"),
    ],
)  # fmt: skip
def test_a_sound_that_fits_everything_saves_no_digit_word_of_chance_or_denial(
    changed: tuple[str, str],
) -> None:
    wanted = statement()
    assert not weighed(wanted, wanted.text.replace(*changed), 0.0).said


def test_a_word_of_chance_in_anothers_place_is_no_slip_however_unsure_it_is() -> None:
    wanted = statement()
    first, second = LEXICA["en"].words[:2]
    text = wanted.text.replace(f"{first}, {second}", f"{second}, {first[:-1]}")
    assert not weighed(wanted, text, 0.0, sure=0.1).said


@settings(max_examples=150)
@given(st.data())
def test_the_sound_passes_nothing_and_turns_no_verdict_but_a_refusal(data: st.DataObject) -> None:
    spoken = data.draw(st.sampled_from(LANGUAGES))
    wanted = statement(spoken)
    said = wanted.text.split()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(said) - 1))
        said[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.lists(st.sampled_from(["xylophone", "2028", *said]), max_size=3)
        )
        said = said or ["xylophone"]
    text = " ".join(said)
    by_ear = match_heard(wanted, HeardText(text, tuple((word, 1.0) for word in said)))
    held = weighed(wanted, text, 0.0)
    if by_ear.said:
        assert held == by_ear
    elif held.said:
        assert held.doubt


@settings(max_examples=150)
@given(st.data())
def test_what_is_put_in_is_refused_held_or_a_slip_far_from_what_must_be_exact(data: st.DataObject) -> None:
    spoken = data.draw(st.sampled_from(LANGUAGES))
    wanted = statement(spoken)
    said = wanted.text.split()
    at = data.draw(st.integers(0, len(said)))
    more = data.draw(
        st.lists(st.sampled_from(["xylophone", *said, *LEXICA[spoken].digits]), min_size=1, max_size=6)
    )
    heard = match(wanted, " ".join([*said[:at], *more, *said[at:]]))
    if heard.said and not heard.doubt:
        assert len(more) < ADDED
        assert heard.slips > 0
