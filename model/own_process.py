"""Whether this process is an engine's own: begun by `model.worker`, with nothing else in it.

Then an engine may do what touches the whole process.
"""

from __future__ import annotations

import sys

SWITCH_INTERVAL_S = 0.0005
"""As in a line: the thread of the weights gets the interpreter back from the loop within that."""

_own = False


def begin() -> None:
    """From now on it is."""
    global _own
    _own = True
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def is_own() -> bool:
    return _own
