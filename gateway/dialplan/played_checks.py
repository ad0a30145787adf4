"""What is wrong with a plan's recordings, found when the plan loads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.dialplan.plan_file import Loaded
from gateway.dialplan.played_file import read_played
from gateway.dialplan.verbs import Playback
from gateway.errors import PlayedFileError

EARLY_S: Final = 60.0
"""Recordings before the answer together: a caller's network gives up a call that rings for long, and nobody
shall hold a line without being answered."""


def check_played(loaded: Loaded, early: int) -> None:
    """Raises `DialplanError` for a recording that cannot be played. `early`: the place of `answer`."""
    early_s = 0.0
    for at, verb in enumerate(loaded.route.do):
        if not isinstance(verb, Playback):
            continue
        here = ("do", at)
        if verb.loop and verb.max_s is None and (verb.interruptible == "no" or at < early):
            why = "before the answer it must end by itself" if at < early else "nothing ends it"
            loaded.fail((*here, "loop"), f"this recording goes on for ever: {why}; add max_s = 30")
        try:
            found = read_played(Path(loaded.source.file).parent, verb.file)
        except PlayedFileError as error:
            loaded.fail((*here, "file"), f"{verb.file!r} cannot be played: {error}")
        if at >= early:
            continue
        if verb.synthetic:
            loaded.fail(
                (*here, "synthetic") if "synthetic" in _written(loaded, at) else here,
                "before the answer nobody can be told that a machine speaks, so no synthetic voice may be "
                "heard there: say synthetic = false if this recording has none, or put it behind disclose",
            )
        lasts_s = found.seconds if verb.max_s is None else verb.max_s
        early_s += lasts_s if verb.loop else min(lasts_s, found.seconds)
        if early_s > EARLY_S:
            loaded.fail(
                here,
                f"what is played before the answer lasts {early_s:.0f} s by now, and {EARLY_S:g} s is the "
                "most; set max_s, or put it behind the answer",
            )


def _written(loaded: Loaded, at: int) -> set[str]:
    """The keys that a verb has in its file."""
    around = (*loaded.path, "do", at)
    return {str(path[-1]) for path in loaded.source.lines if path[:-1] == around}
