"""Languages in a plan: which can be heard of callers, where they lead, and what a voice cannot speak."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Container, Iterator
from typing import Final

from gateway.dialplan.disclosure import spoken_language
from gateway.dialplan.routes import Route
from gateway.dialplan.spoken_texts import texts_of
from gateway.dialplan.verbs import Converse, Disclose

HEARD: Final = frozenset({
    "af", "am", "ar", "as", "az", "ba", "be", "bg", "bn", "bo", "br", "bs", "ca", "cs", "cy", "da", "de",
    "el", "en", "es", "et", "eu", "fa", "fi", "fo", "fr", "gl", "gu", "ha", "haw", "he", "hi", "hr", "ht",
    "hu", "hy", "id", "is", "it", "ja", "jw", "ka", "kk", "km", "kn", "ko", "la", "lb", "ln", "lo", "lt",
    "lv", "mg", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl", "nn", "no", "oc", "pa", "pl",
    "ps", "pt", "ro", "ru", "sa", "sd", "si", "sk", "sl", "sn", "so", "sq", "sr", "su", "sv", "sw", "ta",
    "te", "tg", "th", "tk", "tl", "tr", "tt", "uk", "ur", "uz", "vi", "yi", "yo", "zh",
})  # fmt: skip
"""The languages (ISO 639-1, and as Whisper calls them) that can be told from a caller's speech."""
ELSE: Final = "else"
"""Stands for every language that is not named."""
COUNTRIES: Final = {
    "at": "de", "cn": "zh", "cz": "cs", "dk": "da", "gb": "en", "gr": "el", "jp": "ja", "kr": "ko",
    "mx": "es", "se": "sv", "sp": "es", "ua": "uk", "us": "en",
}  # fmt: skip
"""What is written for a language and means a country."""
UNSPOKEN: Final = {
    "de": "Ich spreche Ihre Sprache leider nicht. Bitte sprechen Sie Deutsch.",
    "en": "I am sorry, I do not speak your language. Please speak English.",
    "es": "Lo siento, no hablo su idioma. Por favor, hable en español.",
    "fr": "Je ne parle malheureusement pas votre langue. Veuillez parler français.",
    "it": "Mi dispiace, non parlo la sua lingua. Per favore, parli in italiano.",
}
"""What is said to a caller in whose language nobody speaks here, by the route's language."""
NEVER_SAID: Final = "nobody ever hears this: it is for callers whose language is heard and leads nowhere"
SCRIPTS: Final = {
    "am": ("ETHIOPIC",), "ar": ("ARABIC",), "as": ("BENGALI",), "be": ("CYRILLIC",), "bg": ("CYRILLIC",),
    "bn": ("BENGALI",), "el": ("GREEK",), "fa": ("ARABIC",), "gu": ("GUJARATI",), "he": ("HEBREW",),
    "hi": ("DEVANAGARI",), "hy": ("ARMENIAN",), "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ka": ("GEORGIAN",),
    "kk": ("CYRILLIC",), "km": ("KHMER",), "kn": ("KANNADA",), "ko": ("HANGUL", "CJK"), "lo": ("LAO",),
    "mk": ("CYRILLIC",), "ml": ("MALAYALAM",), "mn": ("CYRILLIC",), "mr": ("DEVANAGARI",), "my": ("MYANMAR",),
    "ne": ("DEVANAGARI",), "pa": ("GURMUKHI",), "ps": ("ARABIC",), "ru": ("CYRILLIC",), "si": ("SINHALA",),
    "sr": ("CYRILLIC",), "ta": ("TAMIL",), "te": ("TELUGU",), "tg": ("CYRILLIC",), "th": ("THAI",),
    "uk": ("CYRILLIC",), "ur": ("ARABIC",), "yi": ("HEBREW",), "zh": ("CJK",),
}  # fmt: skip
"""The scripts of languages that are not written in Latin letters, as Unicode's names of letters begin."""
FOREIGN: Final = frozenset(script for scripts in SCRIPTS.values() for script in scripts)
SPANISH: Final = "¿¡"
"""No other language has these, and no name."""
_WORD: Final = re.compile(r"[^\W\d_]+")


def why_unheard(code: str) -> str | None:
    """Why nobody can be heard speaking `code`; None when they can."""
    if code in HEARD:
        return None
    if code in COUNTRIES:
        return f"{code!r} is not a language; did you mean {COUNTRIES[code]!r}?"
    if spoken_language(code) in HEARD:
        return f"where a caller comes from is not heard; write {spoken_language(code)!r} for {code!r}"
    return f"{code!r} is not a language that can be heard; there are {', '.join(sorted(HEARD))}"


def why_unled(route: Route, verb: Converse) -> tuple[tuple[str, ...], str] | None:
    """The key of `verb` that is wrong about callers' languages, and why; None when none is."""
    own = spoken_language(route.language)
    for code, name in verb.languages.items():
        here = ("languages", code)
        if code != ELSE and (why := why_unheard(code)) is not None:
            return here, why
        if code == own:
            return here, f"{code!r} is what this route speaks; name the other languages"
        if name == route.name:
            return here, f"{code!r} leads back to this route; name another one"
    if not verb.languages:
        return (("other_language",), NEVER_SAID) if verb.other_language else None
    if own not in HEARD:
        return ("languages",), f"this route's own language is heard for, too, and {why_unheard(own)}"
    if ELSE in verb.languages:
        return (("other_language",), NEVER_SAID) if verb.other_language else None
    if not (verb.other_language or own in UNSPOKEN):
        why = f"no text is known in {own!r} for a caller who speaks a language that is not named"
        return ("languages",), f'{why}; add other_language = "…", or lead such callers to a route by else'
    return None


def unspeakable_text(
    route: Route, spoken: Collection[str], led_to: Container[str]
) -> tuple[tuple[str | int, ...], str] | None:
    """The key of a text of this route that a voice with these languages cannot say, and why; else None.

    `led_to`: the names of routes that others lead to; there the stock voice may ask for a moment.
    """
    can = f"the engine speaks {', '.join(sorted(spoken))} only"
    for path, language, text in _said(route, led_to):
        if spoken_language(language) not in spoken:
            return (
                path,
                f"this is to be said in {language!r}, and {can}; such callers need a person (transfer)",
            )
        if (why := why_unspeakable(text, spoken)) is not None:
            return path, f"nobody can say this: {why}, and {can}"
    return None


def _said(route: Route, led_to: Container[str]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """(path, language, text) of all that may be said in a route."""
    for at, verb in enumerate(route.do):
        language = verb.language if isinstance(verb, Disclose) else route.language
        for path, text in texts_of(verb):
            yield ("do", at, *path), language, text
    if route.hold or (route.name in led_to and not route.voiceless):
        yield ("hold" if route.hold else "language",), route.language, route.hold_text


def why_unspeakable(text: str, spoken: Collection[str]) -> str | None:
    """Why a voice that speaks these languages cannot say `text`; None when nothing is known against it.

    Only what cannot be a name or a loan is looked for: words in another script, Spanish question marks.
    """
    known = {script for language in spoken for script in SCRIPTS.get(language, ())}
    for script, word in _foreign_words(text):
        if script not in known:
            return f"{word!r} is written in {script.capitalize()} letters"
    if "es" not in spoken and "gl" not in spoken and any(mark in text for mark in SPANISH):
        return "it is Spanish (¿, ¡)"
    return None


def _foreign_words(text: str) -> Iterator[tuple[str, str]]:
    """(script, word) of each word that begins in a script other than Latin; a lone letter is a symbol."""
    for match in _WORD.finditer(text):
        word = match.group()
        script = unicodedata.name(word[0], "").partition(" ")[0]
        if script in FOREIGN and (len(word) > 1 or script in ("CJK", "HANGUL")):
            yield script, word
