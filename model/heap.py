"""The objects of a process that is up: those it loaded stay, and the collector minds what came after them.

Python looks through all old objects only when a quarter more of them than at its last look have come
(CPython 3.11, Modules/gcmodule.c). A process has loaded some 100,000 by the time it is up, so
objects of calls that know each other would stay until some 25,000 of them are there, many megabytes; and then
every loaded one is looked at too, which takes a tenth of a second.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """What is there now is looked at no more; what comes from now on, soon. For a process that is up."""
    gc.collect()
    gc.freeze()
    gc.collect()  # of what is left, a quarter more is soon there
