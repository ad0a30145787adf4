"""What the words of an utterance say about whether its end has come. Text only; no sound, no plan.

People stop after a sentence, and pause within a telephone number, after "and", before the word that they
look for. So the last words of what was heard tell how long to wait (`waits_for_more`); and some words are
said to let the other side go on (`is_aside`).

English is known best. Other languages have the words of `TABLE`; one that is not in there has digits alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from model.api import EarlyHearing, HearingState
from model.ears.words_heard import Words

ASIDES: Final = 3
"""Who says more of them in a row wants to speak: "okay, okay, okay, okay"."""
UNHEARD: Final = frozenset({"busy", "lost", "failed", "no weights", "language"})
"""Why there are no words although there may have been some,"""
NOBODY: Final = frozenset({"silence", "no speech"})
"""and why there were none."""
_WORD: Final = re.compile(r"\d+(?::\d\d)+|[^\W_]+(?:['-][^\W_]+)*")
_TRAILS: Final = ("...", "…", "-", "–")
"""Marks with which a recogniser writes that a sentence breaks off."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _pairs(words: str) -> frozenset[str]:
    return frozenset(words.split(", "))


@dataclass(frozen=True, slots=True)
class LastWords:
    """One language's words, lower case."""

    units: frozenset[str] = frozenset()
    """number words of one digit"""
    numbers: frozenset[str] = frozenset()
    """those of more than one"""
    joins: frozenset[str] = frozenset()
    """conjunctions, articles, and what else needs a word after it whatever stands before"""
    places: frozenset[str] = frozenset()
    """prepositions, which may end a question"""
    fillers: frozenset[str] = frozenset()
    asides: frozenset[str] = frozenset()
    """what is said to let the other go on; two words with a blank between them are one of these"""
    questions: frozenset[str] = frozenset()
    """first words of a question that may end with a preposition: "where are you from" """
    ends: frozenset[str] = frozenset()
    """two words that end a sentence although the second alone would not: "hold on" """
    opens: frozenset[str] = frozenset()
    """two words that do not, although the second alone would: "would like" """
    doubles: frozenset[str] = field(default_factory=frozenset)
    """words that repeat the digit after them"""


TABLE: Final[dict[str, LastWords]] = {
    "en": LastWords(
        units=_set("zero oh o nought one two three four five six seven eight nine"),
        numbers=_set(
            "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty "
            "forty fifty sixty seventy eighty ninety hundred thousand million"
        ),
        joins=_set(
            "and or but because if than unless although whether while nor plus a an the my your our their "
            "it's that's there's i'm you're we're they're i'll i'd we'd you'd who's"
        ),
        places=_set(
            "of to for from with at in on by about into between until till during without per via as near "
            "before after since is are was were"
        ),
        fillers=_set("um uh uhm umm erm er eh hmm hm ehm"),
        asides=_set(
            "mm mmm mhm mm-hm mm-hmm mmhm mmhmm mm-mm hm hmm uh-huh uhuh aha ah oh uh huh okay ok right yeah "
            "yep yup yes sure alright great good fine cool thanks you"
        )
        | _pairs("all right, i see, got it, thank you, mm hm, mm hmm, uh huh, of course, m hm"),
        questions=_set(
            "what who where which whom how what's who's where's when why do does is are can could did"
        ),
        ends=_pairs(
            "hold on, hang on, come in, go on, carry on, log in, sign in, check in, move on, turn on, it is, "
            "they are, you are, we are, there is, there are, it was, i was, this one, that one, the one, "
            "another one, which one, no one, any one, last one, first one, other one, right one, good one, "
            "new one"
        ),
        opens=_pairs("would like, i'd like, i am, i want, i need, number is, name is"),
        doubles=_set("double triple"),
    ),
    "de": LastWords(
        units=_set("null eins ein zwei zwo drei vier fünf sechs sieben acht neun"),
        numbers=_set(
            "zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig dreißig "
            "vierzig fünfzig sechzig siebzig achtzig neunzig hundert tausend"
        ),
        joins=_set(
            "und oder aber weil wenn dass ob denn sondern der die das den dem des eine einen einem einer "
            "mein meine meinen ihr ihre ist sind"
        ),
        places=_set("von für mit bei in im am um zum zur nach auf über ohne bis seit aus"),
        fillers=_set("äh ähm öh hm hmm ehm"),
        asides=_set("mhm hm hmm ja okay ok genau gut aha ach achso klar richtig stimmt danke jaja")
        | _pairs("ach so, alles klar, mm hm, vielen dank"),
    ),
    "es": LastWords(
        units=_set("cero uno una dos tres cuatro cinco seis siete ocho nueve"),
        numbers=_set(
            "diez once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve veinte treinta "
            "cuarenta cincuenta sesenta setenta ochenta noventa cien ciento mil"
        ),
        joins=_set("y e o u pero porque si que aunque ni el la los las un unos unas mi su sus mis es son"),
        places=_set("de del a al para por con en sin sobre hasta desde entre"),
        fillers=_set("eh em mmm este esto ehm"),
        asides=_set("mhm ajá aja sí si okay ok vale claro bueno bien ya correcto gracias exacto")
        | _pairs("de acuerdo, muy bien, ya veo"),
    ),
    "fr": LastWords(
        units=_set("zéro un une deux trois quatre cinq six sept huit neuf"),
        numbers=_set(
            "dix onze douze treize quatorze quinze seize vingt trente quarante cinquante soixante cent mille"
        ),
        joins=_set(
            "et ou mais parce que si car ni le la les des mon ma mes votre vos notre nos est sont c'est"
        ),
        places=_set("de du à au aux pour par avec en dans sans sur chez jusqu'à depuis entre"),
        fillers=_set("euh heu ben hum"),
        asides=_set("mhm mm hum oui ouais okay ok d'accord bien bon voilà merci exactement ah")
        | _pairs("très bien, je vois, mm hm"),
    ),
    "it": LastWords(
        units=_set("zero uno una due tre quattro cinque sei sette otto nove"),
        numbers=_set(
            "dieci undici dodici tredici quattordici quindici sedici diciassette diciotto diciannove venti "
            "trenta quaranta cinquanta sessanta settanta ottanta novanta cento mille"
        ),
        joins=_set("e ed o oppure ma perché se che né il lo la i gli le un mio mia suo sua è sono"),
        places=_set("di del della a al alla da dal dalla in nel nella con su sul per tra fra senza fino"),
        fillers=_set("ehm eh mmm allora cioè"),
        asides=_set("mhm sì si okay ok bene certo giusto esatto ah capito grazie perfetto")
        | _pairs("va bene, ho capito, mm hm"),
    ),
    "ru": LastWords(
        units=_set("ноль нуль один одна два две три четыре пять шесть семь восемь девять"),
        numbers=_set(
            "десять одиннадцать двенадцать тринадцать четырнадцать пятнадцать шестнадцать семнадцать "
            "восемнадцать девятнадцать двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят "
            "девяносто сто двести триста тысяча"
        ),
        joins=_set("и или но а потому если что чтобы когда мой моя моё ваш ваша"),
        places=_set("в во на с со к ко у о об от до для из по за над под без через"),
        fillers=_set("э эм ээ мм ну"),
        asides=_set("мгм угу ага да хорошо окей ладно понятно ясно так верно спасибо точно")
        | _pairs("все ясно, всё ясно"),
    ),
}
_NONE: Final = LastWords()


def words_of(text: str) -> list[str]:
    """Its words, lower case; a number is a word, "5:30" one."""
    return _WORD.findall(text.lower().replace("’", "'"))


def digits_of(text: str, language: str = "en") -> int:
    """The digits that are said in it: 4 in "five five, twenty-three"."""
    known = TABLE.get(language, _NONE)
    count, times, tens = 0, 1, False
    for word in (part for whole in words_of(text) for part in whole.split("-")):
        if word.isdecimal():
            count, tens = count + len(word) * times, False
        elif word in known.units:
            count, tens = count + (0 if tens else times), False
        elif word in known.numbers:
            count, tens = count + 2, True
        times = {"double": 2, "triple": 3}.get(word, 1) if word in known.doubles else 1
    return count


def is_aside(text: str, language: str = "en") -> bool:
    """Whether it is nothing to stop for: a few words that let the other side go on."""
    words, asides = words_of(text), TABLE.get(language, _NONE).asides
    at = count = 0
    while at < len(words):
        if " ".join(words[at : at + 2]) in asides and at + 1 < len(words):
            at += 2
        elif words[at] in asides:
            at += 1
        else:
            return False
        count += 1
    return 0 < count <= ASIDES


def waits_for_more(text: str, language: str = "en") -> bool:
    """Whether it ends where nobody stops: in digits, a conjunction, an article, a preposition, an "um"."""
    words = words_of(text)
    known = TABLE.get(language, _NONE)
    return bool(words) and (_is_open(text, words, known) or _may_go_on(words, known))


def hearing_state(
    text: str, language: str = "en", *, answered: bool = False, digits: int | None = None
) -> HearingState:
    """What an engine tells of `text`. `answered`: it has a sure answer to it; `digits`: the plan waits for a
    number of so many."""
    words, known = words_of(text), TABLE.get(language, _NONE)
    if digits is not None and digits_of(text, language) >= digits:
        return "answered"
    if words and _is_open(text, words, known):
        return "unfinished"
    if answered:
        return "answered"
    return "unfinished" if words and _may_go_on(words, known) else "plain"


def early_hearing(words: Words, *, answered: bool = False, digits: int | None = None) -> EarlyHearing | None:
    """What an engine tells of words that it heard at a pause; None when it could not hear."""
    if words.refused in UNHEARD:
        return None
    state = hearing_state(words.text, words.language, answered=answered, digits=digits)
    aside = is_aside(words.text, words.language) if words.text else words.refused in NOBODY
    return EarlyHearing(state, words.sounded_s, aside and state != "answered")


def _is_open(text: str, words: Sequence[str], known: LastWords) -> bool:
    """Whatever the words before it mean, more must come."""
    last, pair = words[-1], " ".join(words[-2:])
    if pair in known.opens and words[0] not in known.questions:
        return True
    return last in known.joins or last in known.fillers or text.rstrip().endswith(_TRAILS)


def _may_go_on(words: Sequence[str], known: LastWords) -> bool:
    """More may come, unless what was said means something already."""
    last, pair = words[-1], " ".join(words[-2:])
    if pair in known.ends:
        return False
    if last in known.places:
        return words[0] not in known.questions
    return all(
        part.isdecimal() or part in known.units or part in known.numbers or part in known.doubles
        for part in last.split("-")
    )
