"""Cards' numbers, and the ways in which people say them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from model.redaction.spoken_digits import digit_words

WORDS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "de": ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    "fr": ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
    "es": ["cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"],
    "it": ["zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"],
}
TWICE = {"en": "double", "de": "zweimal", "fr": "double", "es": "doble", "it": "doppio"}
TENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
PAUSES = (" ", ", ", "... ", " – ", ". ", "; ")
HESITATIONS = {
    "en": [
        "um",
        "uh",
        "let me see",
        "and then",
        "okay",
        "sorry",
        "wait, the light is bad",
        "then",
        "next is",
    ],
    "de": ["äh", "ähm", "Moment", "und dann", "ja", "das ist schwer zu lesen", "weiter mit"],
    "fr": ["euh", "alors", "et puis", "attendez", "je ne vois pas bien", "ensuite"],
    "es": ["eh", "pues", "y luego", "espere", "no lo veo bien", "después"],
    "it": ["ehm", "allora", "e poi", "aspetti", "non vedo bene", "dopo"],
}
ISSUERS = (
    ("4", 16), ("4", 19), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16), ("34", 15), ("37", 15),
    ("36", 14), ("305", 14), ("38", 14), ("6011", 16), ("65", 16), ("3528", 16), ("62", 17), ("50", 18),
)  # fmt: skip


def with_check_digit(digits: str) -> str:
    """The number whose last digit passes Luhn's check."""
    total = 0
    for place, sign in enumerate(reversed(digits)):
        value = int(sign) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return digits + str(-total % 10)


@st.composite
def cards(draw: st.DrawFn) -> str:
    """A number that some issuer could have given out."""
    prefix, length = draw(st.sampled_from(ISSUERS))
    size = length - len(prefix) - 1
    return with_check_digit(prefix + draw(st.text("0123456789", min_size=size, max_size=size)))


@dataclass(frozen=True)
class Dictated:
    """A card's number as somebody says it: its pieces, and what stands after each of them."""

    card: str
    language: str
    pieces: tuple[str, ...]
    gaps: tuple[str, ...]

    def text(self, start: int = 0, end: int | None = None) -> str:
        """What is said from one piece to another."""
        pieces = self.pieces[start:end]
        return "".join(piece + gap for piece, gap in zip(pieces, self.gaps[start:end], strict=True)).strip()


def ordinary_words(language: str) -> st.SearchStrategy[str]:
    """Words that say no digit, whatever they are."""
    table = digit_words(language)
    taken = {word for phrase in table.numbers for word in phrase} | set(table.times) | set(table.plurals)
    words = st.text("abcdefghiklmnoprstuvwz", min_size=3, max_size=9)
    return words.filter(lambda word: word not in taken | set(table.scales) | {"uhr", "plus"})


@st.composite
def dictations(draw: st.DrawFn, language: str, *, strange: bool) -> Dictated:
    """`strange`: anything may be said between two groups, not only what people hesitate with."""
    card = draw(cards())
    pieces, gaps, at = [], [], 0
    between = st.sampled_from(HESITATIONS[language])
    if strange:
        between |= st.lists(ordinary_words(language), min_size=1, max_size=6).map(" ".join)
    while at < len(card):
        piece, size = draw(one_piece(card[at:], language))
        pieces.append(piece)
        at += size
        pause = draw(st.sampled_from(PAUSES))
        if piece.endswith("ty") and pause == " ":
            pause = ", "  # "twenty five" is another number
        filler = draw(st.none() | between) if draw(st.integers(0, 2)) == 0 else None
        gaps.append(pause if filler is None else f"{pause}{filler}{draw(st.sampled_from(PAUSES))}")
    return Dictated(card, language, tuple(pieces), tuple(gaps))


@st.composite
def one_piece(draw: st.DrawFn, left: str, language: str) -> tuple[str, int]:
    """(how the next digits are said, how many they are)"""
    way = draw(st.sampled_from(["figures", "figures", "word", "word", "word", "twice", "teen"]))
    if way == "figures":
        size = draw(st.integers(1, min(6, len(left))))
        return left[:size], size
    if way == "twice" and left[:1] == left[1:2]:
        return f"{TWICE[language]} {WORDS[language][int(left[0])]}", 2
    if way == "teen" and language == "en" and left[:1] == "1" and len(left) > 1:
        return TENS[int(left[1])], 2
    word = (
        "oh" if language == "en" and left[0] == "0" and draw(st.booleans()) else WORDS[language][int(left[0])]
    )
    return word, 1
