"""What a process that crashes leaves behind: nothing of the words and keys in its memory."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

PR_SET_DUMPABLE: Final = 4


def leave_none() -> None:
    """The kernel writes no core file of this process from now on, nor of those that it starts.

    It does not give one to a program either, which a limit alone would not keep it from (core(5), Piping core
    dumps to a program): that part is this process's and its forks', and has to be said again after an exec.
    Then only root can read its memory (prctl(2), PR_SET_DUMPABLE).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
