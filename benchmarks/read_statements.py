"""Statements of consent that machines read, as they should be and with one thing changed.

They fall into two halves with other voices, people and companies: constants are fitted on the first and
read on the second. What was spoken stays in benchmarks/out/statements.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final, Literal

import numpy as np

from benchmarks import synthetic_speak
from consent.checks.sound import Floats, read
from consent.statements.lexicon import LEXICA
from consent.statements.statement import Statement, Terms, render
from watermark.pcm import float_from_int16, int16_from_float

FOLDER: Final = Path(__file__).parent / "out" / "statements"
GRID: Final = 320
"""Each sentence begins at a multiple of so many samples, that the same one may be heard as the same sound."""
GAP: Final = 15 * GRID
"""Samples of silence before each sentence."""

Half = Literal["tuning", "kept"]


@dataclass(frozen=True)
class StatementVoice:
    """A machine that reads statements aloud."""

    half: Half
    language: str
    synthesizer: str
    name: str

    def __str__(self) -> str:
        return f"{self.language} {self.synthesizer} {self.name}"


VOICES: Final = (
    StatementVoice("tuning", "en", "hibari", "heart"),
    StatementVoice("tuning", "en", "pico", "en-US"),
    StatementVoice("tuning", "de", "pico", "de-DE"),
    StatementVoice("tuning", "it", "pico", "it-IT"),
    StatementVoice("tuning", "en", "espeak-ng", "en-us"),
    StatementVoice("kept", "en", "piper", "joe"),
    StatementVoice("kept", "en", "pico", "en-GB"),
    StatementVoice("kept", "fr", "pico", "fr-FR"),
    StatementVoice("kept", "es", "pico", "es-ES"),
    StatementVoice("kept", "en", "espeak-ng", "en-gb+f2"),
)
PEOPLE: Final = {
    "tuning": {
        "en": (("Jane Doe", "Jane Dow"), ("Peter Novak", "Peter Nowell"), ("Mary Williams", "Marie Williams"),
               ("Priya Raman", "Priya Roman")),
        "de": (("Anna Schmidt", "Anna Schmitz"), ("Thomas Becker", "Thomas Bäcker"),
               ("Jürgen Hoffmann", "Jürgen Hofer"), ("Katrin Vogel", "Karin Vogel")),
        "it": (("Anna Rossi", "Anna Rosso"), ("Tommaso Ferrari", "Tommaso Ferraro"),
               ("Giulia Conti", "Giulio Conti"), ("Pietro Romano", "Pietro Romani")),
    },
    "kept": {
        "en": (("Thomas Baker", "Thomas Becker"), ("Sarah Kowalski", "Sara Kowalska"),
               ("Siobhan Murphy", "Siobhan Murray"), ("David Chen", "David Shen")),
        "fr": (("Anne Martin", "Anne Martine"), ("Thomas Bernard", "Thomas Bertrand"),
               ("Marie Dubois", "Marion Dubois"), ("Pierre Laurent", "Pierre Lorrain")),
        "es": (("Ana García", "Ana Garza"), ("Tomás Romero", "Tomás Romera"), ("María López", "Mario López"),
               ("Pedro Navarro", "Pedro Navarra")),
    },
}  # fmt: skip
"""Each with somebody whose name sounds alike."""
COMPANIES: Final = {
    "tuning": (("Acme", "Acne"), ("Delta Travel", "Delta Gravel"), ("Brightwater", "Brightwalter"),
               ("Nova Bank", "Nora Bank")),
    "kept": (("Atlas Energy", "Atlas Entry"), ("Contoso", "Cantoso"),
             ("Northwind Hotels", "Northwing Hotels"), ("Orion Care", "Oregon Care")),
}  # fmt: skip
USES: Final = {
    "en": ("answering questions about orders", "booking rooms", "selling insurance by telephone"),
    "de": ("Auskünfte über Bestellungen", "das Buchen von Zimmern", "den Verkauf von Versicherungen"),
    "fr": ("répondre aux questions sur les commandes", "réserver des chambres", "vendre des assurances"),
    "es": ("responder preguntas sobre pedidos", "reservar habitaciones", "vender seguros"),
    "it": ("rispondere a domande sugli ordini", "prenotare camere", "vendere assicurazioni"),
}
"""The third is what somebody says who reads another purpose."""
ASIDE: Final = {
    "en": "All of this is just a joke.",
    "de": "Das alles ist bloß ein Scherz.",
    "fr": "Tout cela est une plaisanterie.",
    "es": "Todo esto es una broma.",
    "it": "Tutto questo è uno scherzo.",
}
DENIED: Final = {
    "en": ("I consent", "I do not consent"),
    "de": ("Ich willige ein", "Ich willige nicht ein"),
    "fr": ("Je consens", "Je ne consens pas"),
    "es": ("Doy mi consentimiento", "No doy mi consentimiento"),
    "it": ("Do il mio consenso", "Non do il mio consenso"),
}
CHANGES: Final = (
    "one word", "one digit", "digit twice", "words swapped", "name", "alike name", "company",
    "alike company", "year", "day and month", "purpose", "denied", "aside", "left out",
)  # fmt: skip


@dataclass(frozen=True)
class ToRead:
    """One reading: the statement, and the text that is read in its place."""

    wanted: Statement
    change: str
    """one of `CHANGES`; empty where the statement is read as it is"""
    text: str


def to_read(voice: StatementVoice, count: int, changes: int) -> Iterator[ToRead]:
    """`count` statements, each as it is and with so many of the changes; all in turn over the voices."""
    language = voice.language
    chance = random.Random(f"statements {voice}")
    lexicon = LEXICA[language]
    people, companies = PEOPLE[voice.half][language], COMPANIES[voice.half]
    turn = VOICES.index(voice) * count * changes
    for number in range(count):
        (name, alike), (company, like_company) = people[number % 4], companies[(number + number // 4) % 4]
        terms = Terms(
            name, company, ("orders", "rooms"), (language,), date(2027 + number % 4, 6, 30), spoken=language,
            uses=tuple(zip(("orders", "rooms"), USES[language][:2], strict=True)),
        )  # fmt: skip
        words = chance.sample(lexicon.words, 4)
        digits = [chance.randrange(10) for _ in range(4)]
        wanted = render(terms, words, digits)
        yield ToRead(wanted, "", wanted.text)
        for _ in range(changes):
            change = CHANGES[turn % len(CHANGES)]
            turn += 1
            at = chance.randrange(4)
            other_words, other_digits, other, text = list(words), list(digits), terms, ""
            if change == "one word":
                other_words[at] = chance.choice([word for word in lexicon.words if word not in words])
            elif change == "words swapped":
                other_words[at], other_words[at - 1] = words[at - 1], words[at]
            elif change == "one digit":
                other_digits[at] = (digits[at] + chance.randrange(1, 10)) % 10
            elif change == "digit twice":
                other_digits.insert(at, digits[at])
            elif change == "name":
                first, last = chance.choice([one for one, _ in people if one != name]).split()
                mine = name.split()
                other = replace(terms, name=f"{first} {mine[1]}" if at % 2 else f"{mine[0]} {last}")
            elif change == "alike name":
                other = replace(terms, name=alike)
            elif change == "company":
                other = replace(terms, company=chance.choice([one for one, _ in companies if one != company]))
            elif change == "alike company":
                other = replace(terms, company=like_company)
            elif change == "year":
                other = replace(terms, until=terms.until.replace(year=terms.until.year + 1 + at % 3))
            elif change == "day and month":
                other = replace(terms, until=terms.until.replace(month=7 + at, day=3 + at))
            elif change == "purpose":
                other = replace(terms, uses=(terms.uses[0], ("rooms", USES[language][2])))
            elif change == "denied":
                text = _denied(wanted, language)
            elif change == "aside":
                text = f"{wanted.text} {ASIDE[language]}"
            else:
                sentences = [part.text for part in wanted.parts[4:] if len(part.text.split()) > 5]
                text = wanted.text.replace(sentences[at % len(sentences)], "")
            yield ToRead(wanted, change, text or render(other, other_words, other_digits).text)


def _denied(wanted: Statement, language: str) -> str:
    consent, denial = DENIED[language]
    if consent not in wanted.text:
        raise ValueError(f"the statement in {language} does not hold {consent!r}")
    return wanted.text.replace(consent, denial)


def sounds(voice: StatementVoice, texts: list[str], speakers: Path | None) -> list[Floats]:
    """The texts read by a machine, float32 at 16 kHz, sentence by sentence; each is spoken once and kept.

    `speakers` is the folder of `benchmarks.synthetic_corpus`, which hibari and espeak-ng do without.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = {text: re.split(r"(?<=[.]) ", text) for text in texts}
    places = {
        line: FOLDER / f"{hashlib.sha256(f'{voice} {line}'.encode()).hexdigest()[:20]}.npy"
        for text in texts
        for line in lines[text]
    }
    missing = [line for line, place in places.items() if not place.exists()]
    for line, sound in zip(missing, spoken(voice.synthesizer, voice.name, missing, speakers), strict=True):
        np.save(places[line], int16_from_float(sound))
    gap = np.zeros(GAP, np.float32)
    kept = {
        line: np.pad(sound := float_from_int16(np.load(place)), (0, -len(sound) % GRID))
        for line, place in places.items()
    }
    return [np.concatenate([part for line in lines[text] for part in (gap, kept[line])]) for text in texts]


def spoken(synthesizer: str, voice: str, texts: list[str], speakers: Path | None) -> list[Floats]:
    """The texts by one voice of `benchmarks.synthetic_speak`, or of espeak-ng; float32 at 16 kHz each."""
    with tempfile.TemporaryDirectory() as folder:
        if synthesizer == "espeak-ng":
            for number, text in enumerate(texts):
                argv = ["espeak-ng", "-v", voice, "-s", "150", "-w", f"{folder}/{number}.wav", text]
                subprocess.run(argv, check=True)
        elif texts:
            python = sys.executable if synthesizer == "hibari" else f"{speakers}/env/bin/python"
            argv = [python, synthetic_speak.__file__, synthesizer, voice, folder]
            subprocess.run(argv, input=json.dumps(texts), text=True, check=True)
        return [read(Path(folder) / f"{number}.wav").at_16k for number in range(len(texts))]
