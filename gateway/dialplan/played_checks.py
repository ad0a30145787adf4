"""What is wrong with a plan's recordings, found when the plan loads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.dialplan.plan_file import Loaded
from gateway.dialplan.played_file import read_played
from gateway.dialplan.verbs import Answer, Playback, recording_of
from gateway.errors import PlayedFileError

EARLY_S: Final = 60.0
"""Recordings before the answer together: a caller's network gives up a call that rings for long, and nobody
shall hold a line without being answered."""


def check_played(loaded: Loaded, *, read: bool) -> None:
    """Raises `DialplanError` for a recording that cannot be played. `read`: its file is looked at, too."""
    early = next(at for at, verb in enumerate(loaded.route.do) if isinstance(verb, Answer))
    early_s = 0.0
    for at, one in enumerate(loaded.route.do):
        if (verb := recording_of(one)) is None:
            continue
        here = ("do", at)
        if verb.loop and verb.max_s is None and (verb.interruptible == "no" or at < early):
            why = "before the answer it must end by itself" if at < early else "nothing ends it"
            loaded.fail((*here, "loop"), f"this recording goes on for ever: {why}; add max_s = 30")
        seconds = _seconds(loaded, here, verb) if read else 0.0
        if at >= early:
            continue
        if verb.synthetic:
            loaded.fail(
                (*here, "synthetic") if "synthetic" in _written(loaded, at) else here,
                "before the answer nobody can be told that a machine speaks, so no synthetic voice may be "
                "heard there: say synthetic = false if this recording has none, or put it behind disclose",
            )
        lasts_s = seconds if verb.max_s is None else verb.max_s
        early_s += lasts_s if verb.loop else min(lasts_s, seconds)
        if early_s > EARLY_S:
            loaded.fail(
                here,
                f"what is played before the answer lasts {early_s:.0f} s by now, and {EARLY_S:g} s is the "
                "most; set max_s, or put it behind the answer",
            )


def _seconds(loaded: Loaded, here: tuple[str | int, ...], verb: Playback) -> float:
    """How long it is. Raises as `check_played`."""
    try:
        return read_played(Path(loaded.source.file).parent, verb.file).seconds
    except PlayedFileError as error:
        loaded.fail((*here, "file"), f"{verb.file!r} cannot be played: {error}")


def _written(loaded: Loaded, at: int) -> set[str]:
    """The keys that a verb has in its file."""
    around = (*loaded.path, "do", at)
    return {str(path[-1]) for path in loaded.source.lines if path[:-1] == around}
