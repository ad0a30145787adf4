"""Cards' and accounts' numbers are not kept, and all else that people say with numbers is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.redaction.redactor import Redactor, redacted, redacted_turns
from model.redaction.spoken_digits import read_digits
from tests.model.redaction.dictation import Dictated, dictations, ordinary_words

LANGUAGES = ("en", "de", "fr", "es", "it")


def digits_in(text: str, language: str) -> str:
    """All digits that a reader of `text` learns."""
    return "".join(piece.digits for piece in read_digits(text, language))


# ── cards ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("4111111111111111", "[card number]"),
        ("My card is 4111 1111 1111 1111.", "My card is [card number]."),
        ("My card is 4111-1111-1111-1111, thanks", "My card is [card number], thanks"),
        ("it's 3782 822463 10005", "it's [card number]"),
        ("4,111 1,111 1,111 1,111", "[card number]"),
        ("four one one one, one one one one, one one one one, one one one one", "[card number]"),
        ("four triple one, four ones, um, double one double one, one one one one", "[card number]"),
        ("four thousand one hundred eleven, 1111, 1111, 1111", "[card number]"),
        ("forty-one eleven, eleven eleven, eleven eleven, eleven eleven", "[card number]"),
        ("five five double oh, oh oh oh oh, oh oh oh oh, oh oh oh four", "[card number]"),
        ("well that is 4111 uh 1111 er wait 1111 and then 1111 okay?", "well that is [card number] okay?"),
        (
            "The first four digits are 4111, the next four are 1111, after that 1111, the last four 1111.",
            "The first four digits are [card number], the next four are [card number], "
            "after that [card number], the last [card number].",
        ),
        ("that one is four one for two eleven eleven 1111 1114", "that one is [card number]"),
    ],
)
def test_a_cards_number_is_not_kept(said: str, kept: str) -> None:
    assert redacted(said) == kept


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "vier eins eins eins, einmal eins eins eins, dreimal die eins, eins eins eins eins eins eins"),
        ("de", "einundvierzig elf, elf elf, elf elf, elf elf"),
        ("fr", "quarante et un onze, onze onze, onze onze, onze onze"),
        (
            "fr",
            "soixante-cinq quatre-vingt-dix-neuf, double zéro double zéro, double zéro double zéro, "
            "double zéro zéro quatre",
        ),
        ("es", "cuatro uno uno uno, doble uno doble uno, once once, uno uno uno uno"),
        ("it", "quarantuno undici, undici undici, undici undici, undici undici"),
        ("it", "quattro uno uno uno uno uno uno uno uno uno uno uno uno uno uno uno"),
    ],
)
def test_a_cards_number_is_not_kept_in_other_languages(language: str, said: str) -> None:
    kept = redacted(said, language)
    assert "[card number]" in kept
    assert len(digits_in(kept, language)) <= 4


def test_a_card_whose_digit_was_misheard_is_not_kept() -> None:
    assert redacted("It is 4111 1111 1111 1117, I think") == "It is [number], I think"
    assert redacted("nine nine nine nine nine nine nine nine nine nine nine nine seven") == "[number]"


def test_expiry_and_security_code_go_with_their_card() -> None:
    said = "4111 1111 1111 1111, oh three twenty six, and the code is 123"
    assert redacted(said) == "[card number], and the code is [code]"
    assert redacted_turns(["4111 1111 1111 1111", "the security code is 1 2 3"]) == [
        "[card number]",
        "the security code is [code]",
    ]
    assert redacted("the door's code is 1234") == "the door's code is 1234"


def test_a_card_over_several_turns_is_not_kept() -> None:
    assert redacted_turns(["Yes, it's four one one one one one one one", "one one one one 1111"]) == [
        "Yes, it's [card number]",
        "[card number]",
    ]
    assert redacted_turns(["4111", "yes 1111", "1111", "and 1111, that's all"]) == [
        "[card number]",
        "yes [card number]",
        "[card number]",
        "and [card number], that's all",
    ]


def test_a_card_that_is_too_long_a_number_before_it_is_whole_is_not_kept() -> None:
    assert redacted_turns(["4 000000 000000", "0 0 0006"]) == ["[card number]", "[card number]"]
    redactor = Redactor()
    shown = [redactor.kept_by_now(redactor.hear(turn)) for turn in ("4 000000 000000", "0 0 0006")]
    assert shown == ["[number]", "[card number]"]


def test_a_card_that_holds_another_one_may_go_on_in_the_next_turn() -> None:
    # fourteen digits are known by now, and five are to come
    turns = ("vier 00000 null null 000000", "00 006")
    assert redacted_turns(turns, "de") == ["[card number]", "[card number]"]


def test_of_two_cards_that_may_be_meant_the_longer_is_not_kept() -> None:
    # without the nine that stands alone the others are a card's as well
    turns = ("6 dos uno seis", "nueve no lo veo bien 0 0 0000 doble cero 0 0 07")
    assert redacted_turns(turns, "es") == ["[card number]", "[card number] no lo veo bien [card number]"]
    redactor = Redactor("es")
    shown = [redactor.kept_by_now(redactor.hear(turn)) for turn in turns]
    assert shown == ["6 dos uno seis", "[card number] no lo veo bien [card number]"]


def test_a_turn_is_settled_when_no_later_one_can_belong_to_it() -> None:
    redactor = Redactor()
    assert redactor.hear("I want to pay").settled
    half = redactor.hear("it is 4111 1111")
    assert not half.settled
    assert half.kept == "it is 4111 1111"
    assert redactor.kept_by_now(half) == "it is [number]"
    for _ in range(3):
        assert redactor.hear("one moment please").settled
    assert half.settled
    assert half.kept == "it is 4111 1111"
    last = redactor.hear("my number is 555 123 4567")
    redactor.finish()
    assert (last.settled, last.kept) == (True, "my number is 555 123 4567")


def test_what_may_yet_be_a_cards_is_not_shown_where_it_cannot_be_taken_back() -> None:
    redactor = Redactor()
    shown = []
    for turn in ("4111", "1111", "1111", "1111"):
        shown.append(redactor.kept_by_now(redactor.hear(turn)))
    assert shown == ["4111", "[number]", "[number]", "[card number]"]


def test_a_machine_that_says_a_card_again_is_not_quoted() -> None:
    redactor = Redactor()
    redactor.hear("4111 1111 1111 1111")
    assert redactor.say("So that is 4111 1111 1111 1111?") == "So that is [card number]?"
    assert redactor.say("It begins with 411111, right?") == "It begins with [number], right?"
    assert redactor.say("It ends in 1111. We open at 9.") == "It ends in 1111. We open at 9."


@pytest.mark.parametrize("language", LANGUAGES)
@given(st.data())
def test_no_more_than_four_digits_of_a_card_are_kept_whatever_stands_between(
    language: str, data: st.DataObject
) -> None:
    said = data.draw(dictations(language, strange=True))
    before, after = (" ".join(data.draw(st.lists(ordinary_words(language), max_size=4))) for _ in "ab")
    kept = redacted(f"{before} {said.text()} {after}", language)
    assert len(digits_in(kept, language)) <= 4, kept


@pytest.mark.parametrize("language", LANGUAGES)
@given(st.data())
def test_no_more_than_four_digits_are_kept_of_a_card_over_two_turns(
    language: str, data: st.DataObject
) -> None:
    said: Dictated = data.draw(dictations(language, strange=False))
    at = data.draw(st.integers(0, len(said.pieces)))
    between = data.draw(st.lists(ordinary_words(language).map(lambda word: [word]), max_size=2))
    turns = [said.text(0, at), *(" ".join(words) for words in between), said.text(at)]
    kept = redacted_turns(turns, language)
    assert len(digits_in(" . ".join(kept), language)) <= 4, kept
    redactor = Redactor(language)
    at_once = [redactor.kept_by_now(redactor.hear(turn)) for turn in turns]
    assert len(digits_in(" . ".join(at_once), language)) <= 4, at_once


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("It's DE89 3704 0044 0532 0130 00.", "It's [account number]."),
        ("GB82WEST12345698765432", "[account number]"),
        ("N L nine one A B N A oh four one seven, um, one six four three oh oh", "[account number]"),
        ("FR14 2004 1010 0505 0001 3M02 606", "[account number]"),
        ("sort code 20-00-00, account 12345678", "sort code [account number], account [account number]"),
        ("sort code twelve thirty four fifty six", "sort code [account number]"),
        ("the routing number is 021000021", "the routing number is [account number]"),
        (
            "one two three four five six seven eight is my account number",
            "[account number] is my account number",
        ),
        ("my social security number is 078 05 1120", "my social security number is [code]"),
        ("my pin is four five two one", "my pin is [code]"),
        ("card ending in 1111", "card ending in 1111"),
    ],
)
def test_an_accounts_number_is_not_kept(said: str, kept: str) -> None:
    assert redacted(said) == kept


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "Meine Kontonummer ist 1234567"),
        ("de", "Die Kreditkartennummer beginnt mit fünf fünf null null null"),
        ("fr", "mon numéro de compte est le 1234567"),
        ("es", "mi número de cuenta es 1234567"),
        ("it", "il numero del conto è 1234567"),
    ],
)
def test_an_accounts_number_is_not_kept_in_other_languages(language: str, said: str) -> None:
    assert redacted(said, language).endswith("[account number]")


@pytest.mark.parametrize(
    ("asked", "said", "kept"),
    [
        ("What is your account number?", "it's 1234567", "it's [account number]"),
        ("What is your account number?", "1234", "1234"),
        ("And the security code, please?", "one two three", "[code]"),
        ("What is your account number?", "call me at 555 123 4567", "call me at 555 123 4567"),
        ("What is your telephone number?", "555 123 4567", "555 123 4567"),
        (
            "When were you born?",
            "the fifth of May nineteen eighty five",
            "the fifth of May nineteen eighty five",
        ),
    ],
)
def test_what_was_asked_for_says_what_a_number_is(asked: str, said: str, kept: str) -> None:
    assert Redactor().hear(said, asked=asked).kept == kept


# ── all else ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "Can I book a table for two at 7:30 p.m. on the 12th?"),
        ("en", "My number is 030 1234567."),
        ("en", "You can reach me at plus four nine, one five one, two three four five six seven eight nine"),
        ("en", "+49 151 23456789"),
        ("en", "0049 151 23456789"),
        ("en", "call 415 555 1234, or 415 555 9876"),
        ("en", "it's 415-555-1234, 415-555-1234"),
        ("en", "five five five one two three four five six seven"),
        ("en", "It was 1,250,000 dollars in 2019 and $2,400.50 in 2020."),
        ("en", "in 2018, 2019, 2020, 2021 and 2022"),
        ("en", "seats 12, 14, 16, 18, 20, 22, 24 and 26"),
        ("en", "I paid 25000 into my account"),
        ("en", "I have had my account since 2019, for five years"),
        ("en", "the security guard came in 2019 at ten thirty"),
        ("en", "order number 12345678901"),
        ("en", "my zip code is 90210 and my street number is 1600"),
        ("en", "born on 03/12/1985, or 1985-12-03"),
        ("en", "between 10:30 and 11:45, 20 minutes from platform 9"),
        ("en", "the one I want is that one, not the other two"),
        ("en", "one, two, three, testing"),
        ("en", "flight four one two at twenty to nine from gate sixteen"),
        ("en", "I had twenty five thousand two hundred and six of them for fifteen years"),
        ("en", ""),
        ("de", "Ich möchte einen Tisch für vier Personen um halb acht am 24.12.2026, ein Fenster bitte"),
        ("de", "null drei null, eins zwei drei vier fünf sechs sieben"),
        ("de", "Meine Bestellnummer ist 123456789"),
        ("fr", "une table pour quatre personnes à dix-neuf heures trente, le 14 juillet 1989"),
        ("fr", "zéro six, douze, trente-quatre, cinquante-six, soixante-dix-huit"),
        ("es", "una mesa para dos a las ocho y media, el 12 de octubre de 1992"),
        ("es", "seis uno dos, tres cuatro cinco, seis siete ocho"),
        ("it", "un tavolo per due alle venti e trenta, sei gentile, il 2 giugno 1946"),
        ("it", "tre tre uno, due tre quattro cinque sei sette otto"),
    ],
)
def test_what_people_say_with_numbers_stays(language: str, said: str) -> None:
    assert redacted(said, language) == said


def test_a_telephone_number_that_is_said_twice_stays() -> None:
    turns = ["my number is 415 555 1234", "415 555 1234, as I said", "yes, 555 1234"]
    assert redacted_turns(turns) == turns


@given(st.lists(ordinary_words("en"), max_size=30), st.integers(1900, 2099), st.integers(1, 12))
def test_a_sentence_without_such_numbers_passes_unchanged(words: list[str], year: int, hour: int) -> None:
    said = f"{' '.join(words)} in {year} at {hour}:30, {' '.join(words)} for ${hour}.50"
    assert redacted(said) == said


@given(st.text(max_size=300), st.sampled_from(LANGUAGES))
def test_any_text_is_read(text: str, language: str) -> None:
    assert isinstance(redacted(text, language), str)


@given(st.text("0123456789 ,.-:oneforty", max_size=400))
def test_what_is_redacted_is_redacted(text: str) -> None:
    once = redacted(text)
    assert redacted(once) == once
