"""Text as a telephone can say it: no markup, no addresses letter by letter, no pictures, no template.

`plain` is for what is heard and kept; it lets through letters, digits and the marks of ordinary sentences,
so that nothing of a chat template (`<|im_start|>`, `[INST]`, `### System:`) can be written with it.
`SayableText` is for what a model writes.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ALLOWED: Final = frozenset(" .,!?;:'’\"%&@+/()-$€£°")
"""Beside letters, their marks, and digits."""
_DASHES: Final = str.maketrans("–—‐‑−“”„«»‘…", '-----"""""\'.')
_NOTHING: Final = ("Cf", "Cs", "Sk", "Mn", "Mc", "Me")
"""Kinds of signs that only join or colour others (in emoji); any other sign parts words."""
_COLON: Final = re.compile(r"(?<!\d):|:(?!\d)")
_BLANKS: Final = re.compile(r"\s+")

_CALL: Final = ("<tool_call>", "</tool_call>")
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_RULE: Final = re.compile(r"^[\s|:*_=-]+$")
_LINE_MARK: Final = re.compile(r"^\s*(?:#{1,6}\s+|>\s*|[-*+•]\s+|\d{1,3}[.)]\s+)+")
_TAG: Final = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<\|[^<>|]{0,60}\|>|\[/?INST\]", re.IGNORECASE)
_IMAGE: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\s[^()]*)?\)")
_MARKS: Final = re.compile(r"(\*{1,3}|_{1,3}|~~|`+)(?=\S)(.+?)(?<=\S)\1")
_URL: Final = re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]+", re.IGNORECASE)
_MAIL: Final = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_ABBREVIATIONS: Final = {
    "mr.": "Mister", "mrs.": "Missus", "dr.": "Doctor", "prof.": "Professor", "e.g.": "for example,",
    "i.e.": "that is,", "etc.": "and so on", "approx.": "about", "vs.": "versus", "a.m.": "AM", "p.m.": "PM",
}  # fmt: skip
_ABBREVIATED: Final = re.compile(
    r"(?<![\w.])(" + "|".join(map(re.escape, _ABBREVIATIONS)) + r")(?![\w])", re.IGNORECASE
)
_NUMBER_SIGN: Final = re.compile(r"(?<!\w)(?:No\.\s*|#\s?)(?=\d)")
_INITIAL: Final = re.compile(r"\b([A-HJ-Z])\.(?=\s)")
_TIMES: Final = re.compile(r"(?<=\d)\s*[*×]\s*(?=\d)")
_AND: Final = re.compile(r"\s&\s")


def plain(text: str) -> str:
    """`text` in one line of letters, digits and the marks of sentences; a colon stays between digits only.

    Compatibility forms are folded first (NFKC): a full-width bracket is a bracket.
    """
    folded = unicodedata.normalize("NFKC", text.translate(_DASHES)).translate(_DASHES)
    kept: list[str] = []
    for sign in folded:
        kind = unicodedata.category(sign)
        if sign in _ALLOWED or kind[0] in "LN" or (kind[0] == "M" and kept and _is_letter(kept[-1])):
            kept.append(sign)
        elif kind not in _NOTHING:
            kept.append(" ")
    return _BLANKS.sub(" ", _COLON.sub(",", "".join(kept))).strip(" ,")


def _is_letter(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "LM"


class SayableText:
    """One answer's text, sentence by sentence: a block of code may go on over several."""

    def __init__(self) -> None:
        self._in_code = False
        self._in_call = False

    def words(self, sentence: str) -> str:
        """What of `sentence` can be said; empty when nothing can."""
        return " ".join(said for line in sentence.splitlines() if (said := self._line(line)))

    def _line(self, line: str) -> str:
        if _FENCE.match(line):
            self._in_code = not self._in_code
            return ""
        if self._in_code or _RULE.match(line):
            return ""
        text = self._without_calls(line)
        if text.strip().startswith("{"):  # a call again, or nothing that a sentence begins with
            return ""
        text = _LINE_MARK.sub("", text)
        text = _TAG.sub(" ", text)
        text = _IMAGE.sub(r"\1", text)
        for _ in range(3):  # bold in italics in code
            text = _MARKS.sub(r"\2", text)
        text = _MAIL.sub(lambda found: _spoken_place(found[0].replace("@", " at ")), text)
        text = _URL.sub(lambda found: _spoken_url(found[0]), text)
        text = _NUMBER_SIGN.sub("number ", text)
        text = _ABBREVIATED.sub(lambda found: _spoken_abbreviation(found, text), text)
        text = _INITIAL.sub(r"\1", text)
        text = _TIMES.sub(" times ", text).replace("=", " equals ")
        text = _AND.sub(" and ", text.replace("|", ", ").replace("_", " "))
        said = re.sub(r"\s+([.,!?;])", r"\1", plain(text))
        said = re.sub(r"([,;])(?:\s*[,;])+", r"\1", said)
        return said if any(map(str.isalnum, said)) else ""

    def _without_calls(self, line: str) -> str:
        """`line` without what a model that lacks a way to call tools writes instead."""
        parts = []
        for part in re.split(r"(</?tool_call>)", line):
            if part in _CALL:
                self._in_call = part == _CALL[0]
            elif not self._in_call:
                parts.append(part)
        return " ".join(parts)


def _spoken_abbreviation(found: re.Match[str], text: str) -> str:
    """Its words; its dot stays where it also ends the sentence."""
    words = _ABBREVIATIONS[found[1].lower()]
    return words.rstrip(",") + "." if not text[found.end() :].strip(" \"')") else words


def _spoken_url(url: str) -> str:
    """The host alone, as one says it: nobody listens to a path."""
    tail = "." if url.endswith(".") else ""
    host = re.split(r"[/?#]", re.sub(r"^https?://", "", url, flags=re.IGNORECASE).rstrip(".,;:!"))[0]
    host = host.rpartition("@")[2].partition(":")[0]
    return _spoken_place(host.lower().removeprefix("www.")) + tail


def _spoken_place(name: str) -> str:
    return name.replace(".", " dot ")
