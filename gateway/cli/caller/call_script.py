"""A caller's script: what is done in a call, one thing after the other, from text or from code.

# what a caller asks, three times
listen
repeat 3
  say "what are your opening hours"
  listen
end
press 1#
hang up
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gateway.errors import CallerError

Act = Literal["listen", "play", "say", "press", "wait", "at", "interrupt", "hold", "hang up"]

SAID_OF: Final[dict[str, str]] = {
    "listen": "listen",
    "play": "play FILE.wav",
    "say": "say WORDS",
    "press": "press KEYS",
    "wait": "wait SECONDS",
    "at": "at SECONDS",
    "interrupt": "interrupt [SECONDS]",
    "hold": "hold SECONDS",
    "hang up": "hang up",
    "repeat": "repeat TIMES",
    "end": "end",
}
"""Each word that begins a line, and the line."""
TIMED: Final[dict[str, Act]] = {"wait": "wait", "at": "at", "interrupt": "interrupt", "hold": "hold"}
SECONDS: Final[dict[str, tuple[float, float]]] = {
    "wait": (0.0, 3600.0),
    "at": (0.0, 3600.0),
    "interrupt": (0.0, 60.0),
    "hold": (1.0, 600.0),
}
"""Least and most. A hold is a question and an answer; a shorter one would begin to end before it began."""
INTERRUPT_S: Final = 1.0
MOST_TIMES: Final = 1000
MOST_ACTS: Final = 10_000
KEYS: Final = re.compile(r"[0-9A-D*#]+")


@dataclass(frozen=True, slots=True)
class CallerAct:
    """One thing that a caller does; the next one begins when it is done.

    `listen`: until the other side has spoken and is quiet, or has been quiet for too long. `interrupt`: until
    it has been speaking for `seconds`, so that what comes next is said over its voice.
    """

    act: Act
    sound: Path | None = None
    """`play`: a wav file, of any rate, mono or stereo."""
    words: str = ""
    """`say`: in English."""
    keys: str = ""
    """`press`: 0-9, *, #, A-D."""
    seconds: float = 0.0
    """`wait`, `hold`, `interrupt`; `at`: until so long after the answer."""
    where: str = ""
    """The script's line, for what is said of it."""


def in_turn(script: Sequence[Path | str | CallerAct]) -> tuple[CallerAct, ...]:
    """A wav file is played, a text of digits pressed, each when the other side is quiet; an act is itself.

    Raises `CallerError` for keys that no telephone has.
    """
    acts: list[CallerAct] = []
    for item in script:
        if isinstance(item, CallerAct):
            acts.append(item)
        elif isinstance(item, Path):
            acts += [CallerAct("listen"), CallerAct("play", sound=item)]
        else:
            acts += [CallerAct("listen"), CallerAct("press", keys=_keys(item))]
    return tuple(acts)


def load_script(path: Path) -> tuple[CallerAct, ...]:
    """The script in a file; its sounds are sought beside it. Raises `CallerError`, which names the line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CallerError(f"cannot read the script {path}: {why}") from None
    return parse_script(text, str(path), path.parent)


def parse_script(text: str, name: str, folder: Path) -> tuple[CallerAct, ...]:
    """The acts of a script; `repeat` and `end` are worked out. Raises `CallerError`, which names the line."""
    levels: list[tuple[int, str, list[CallerAct]]] = [(1, "", [])]
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{name}, line {number}"
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        word, rest = _split(written, where)
        if word == "repeat":
            levels.append((_times(rest, where), where, []))
        elif word == "end":
            if len(levels) == 1:
                raise CallerError(f"{where}: there is nothing to end: no `repeat` stands before it")
            times, _, acts = levels.pop()
            if len(levels[-1][2]) + len(acts) * times > MOST_ACTS:
                raise CallerError(f"{where}: that makes more than {MOST_ACTS:,} steps; repeat less often")
            levels[-1][2].extend(acts * times)
        else:
            levels[-1][2].append(_act(word, rest, where, folder))
    if len(levels) > 1:
        raise CallerError(f"{levels[-1][1]}: this `repeat` has no `end`; write `end` after its last line")
    if not levels[0][2]:
        raise CallerError(f"{name}: nothing is done in this script; its lines are: {_lines()}")
    return tuple(levels[0][2])


def _lines() -> str:
    return ", ".join(SAID_OF.values())


def _split(written: str, where: str) -> tuple[str, str]:
    """The line's first word ("hang up" is one) and the rest."""
    word, _, rest = written.partition(" ")
    word, rest = word.lower(), rest.strip()
    if word == "hang":
        said = rest.partition("#")[0].split()
        word, rest = f"hang {said[0].lower()}" if said else word, " ".join(said[1:])
    if word not in SAID_OF:
        near = difflib.get_close_matches(word, SAID_OF, 1, 0.6)
        hint = f"did you mean `{SAID_OF[near[0]]}`?" if near else f"a line is one of: {_lines()}"
        raise CallerError(f"{where}: {word!r} is not a step; {hint}")
    if word not in ("say", "play", "press"):  # words and files may have a # in them, and keys have
        rest = rest.partition("#")[0].strip()
    return word, rest


def _act(word: str, rest: str, where: str, folder: Path) -> CallerAct:
    if word in ("listen", "hang up"):
        if rest:
            raise CallerError(f"{where}: nothing stands after `{word}`, and here is {rest!r}; take it away")
        return CallerAct("listen" if word == "listen" else "hang up", where=where)
    if word == "interrupt" and not rest:
        return CallerAct("interrupt", seconds=INTERRUPT_S, where=where)
    if not rest:
        raise CallerError(f"{where}: `{word}` says too little; write `{SAID_OF[word]}`")
    if word == "play":
        sound = folder / _unquoted(rest)
        if not sound.is_file():
            raise CallerError(f"{where}: {sound} does not exist; a sound is sought beside the script")
        return CallerAct("play", sound=sound, where=where)
    if word == "say":
        return CallerAct("say", words=_unquoted(rest), where=where)
    if word == "press":
        try:
            return CallerAct("press", keys=_keys(rest), where=where)
        except CallerError as error:
            raise CallerError(f"{where}: {error}") from None
    return _timed(word, rest, where)


def _timed(word: str, rest: str, where: str) -> CallerAct:
    least, most = SECONDS[word]
    try:
        seconds = float(rest)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= most:
        raise CallerError(
            f"{where}: {rest!r} is not a number of seconds from {least:g} to {most:g}; "
            f"write, for example, `{word} 2.5`"
        )
    return CallerAct(TIMED[word], seconds=seconds, where=where)


def _times(rest: str, where: str) -> int:
    if not rest.isascii() or not rest.isdigit() or not 1 <= int(rest) <= MOST_TIMES:
        raise CallerError(
            f"{where}: {rest!r} is not how often; write `repeat` with a number from 1 to {MOST_TIMES}"
        )
    return int(rest)


def _keys(text: str) -> str:
    if not KEYS.fullmatch(text):
        raise CallerError(f"{text!r} are not keys of a telephone: 0-9, *, #, A-D")
    return text


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
