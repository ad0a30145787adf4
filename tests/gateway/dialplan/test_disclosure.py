"""What a caller is told first, in each language, and who may be named in it."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter

from consent.statements.lexicon import LEXICA
from gateway.dialplan import Disclose
from gateway.dialplan.disclosure import KEY, WORDINGS, asked_again, sentence, why_no_principal
from gateway.dialplan.verbs import Phrase


@pytest.mark.parametrize("language", WORDINGS)
def test_each_language_says_that_a_machine_speaks_and_for_whom(language: str) -> None:
    said = sentence("Lindens Ltd.", language, cloned=False)
    wording = WORDINGS[language]
    assert "Lindens Ltd." in said
    assert re.search("machine|Maschine|máquina|macchina", said)
    assert re.search(r"\b(AI|KI|IA)\b", said), "and that its voice is made"
    assert "{" not in said
    assert ".." not in said, "a name may end with a dot"
    assert sentence("Lindens Ltd.", language, cloned=True) == f"{said} {wording.cloned}"
    assert re.search(r"cop(y|ie|ia)|Kopie", wording.cloned)
    assert re.search("consen|Einwilligung", wording.cloned)


@pytest.mark.parametrize("language", WORDINGS)
def test_callers_can_ask_in_each_language(language: str) -> None:
    asked = asked_again(language)
    assert len(set(asked["ask"])) == len(asked["ask"]) >= 8
    for phrase in asked["ask"]:
        TypeAdapter(Phrase).validate_python(phrase)


def test_it_can_be_said_wherever_consent_can_be_given() -> None:
    assert WORDINGS.keys() == LEXICA.keys()


def test_a_plan_adds_words_and_takes_none_away() -> None:
    must = sentence("Lindens", "en", cloned=True)
    verb = Disclose(principal="Lindens", language="en", before="Hello. ", text="It is {time}.")
    assert verb.words(cloned=True) == f"Hello. {must} It is {{time}}."
    assert len(KEY) == 1


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "x", "?", "...", "AI", "A.I.", "a. i.", "KI", "An AI", "the assistant",
        "AI Voice Assistant", "your voice bot", "Bot", "BOT", "dieser Roboter", "Ihre KI", "une machine",
        "IA", "el robot", "la macchina", "Voicegate", "Voice Gate", "myself", "me", "nobody", "somebody",
        "the company", "N/A", "tbd", "{company}", "Acme\nLtd", "Acme\u202egnp", "Acme\u00a0Ltd",
        "Ac\u200bme", "ＡＣＭＥ", "Acme  Ltd", " Acme", "Acme ", "Асme", "<b>Acme</b>", "Acme; we are human",
        "x" * 81, "Acme..", "__", "1", "☎ Acme", "the system", "wir",
    ],
)  # fmt: skip
def test_who_is_nobody_is_not_named(name: str) -> None:
    assert why_no_principal(name)


@pytest.mark.parametrize(
    "name",
    [
        "Lindens Bicycle Workshop", "Jane Doe", "1&1", "O'Brien & Sons, Inc.", "Müller-Lüdenscheidt GmbH",
        "L'Oréal",
        "Robot Café", "AI Partners Ltd", "Газпром", "トヨタ", "A+B (Vienna)", "BMW", "3 Musketeers",
        "Éa", "24/7 Fitness", "The Voice Company of Leeds", "Dr. Ana María Peña", "x" * 80,
    ],
)  # fmt: skip
def test_companies_and_people_are_named(name: str) -> None:
    assert why_no_principal(name) is None
