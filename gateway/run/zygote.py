"""The process that the others are forked from, so that what they import is in memory once.

    python -m gateway.run.zygote

imports what any of them needs, then forks one for each request on its standard input, a socket. A line of
JSON asks (`Birth`), a line answers: the pid and 0, or 0 and an errno. The fork's parent is whoever asked, which has
to be a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), not this process: so each outlives this one, dies with
its parent, and is waited for by it. A fork is as a process of its own is that `gateway.run.entry` began: with
its environment, command line, session and limits, and without any descriptor but the log's. This process
reads no settings and no keys, and has one thread.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consent import core_files
from gateway.run import entry

SHARED: Final = (
    "gateway.front.__main__",
    "gateway.hall.__main__",
    "gateway.line.web",
    "gateway.rtp.sip_process",
    "gateway.run.office_child",
    "gateway.run.prepare",
    "model.ears.ears_process",
    "model.embedded.engine",
    "model.server",
)
"""What processes of a house begin with. A module that only one of them uses costs no more here than there; none
of these may begin a thread, which a fork would miss (as onnxruntime does)."""
TITLE_ROOM: Final = 1000
"""Bytes beyond our own command line that a fork's may take."""
PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Birth:
    """A process that is asked for: it calls the function at `place` ("module:function") with `argv`.

    It writes to the file `failure` why it fails (`gateway.run.entry`).
    """

    failure: str
    place: str
    argv: tuple[str, ...]
    environ: dict[str, str]

    def written(self) -> bytes:
        """As a line."""
        return json.dumps([self.failure, self.place, self.argv, self.environ]).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Birth:
        """The contrary of `written`."""
        failure, place, argv, environ = json.loads(line)
        return cls(failure, place, tuple(argv), environ)


def prepare(modules: Iterable[str]) -> None:
    """Imports `modules`, and has the collector leave them alone, so that their pages stay shared."""
    gc.disable()
    entry.leave_out_unused()
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: S112  # whoever needs it imports it again, and says what is wrong
            continue
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)  # a fork would copy each page of which a part is free


def serve(asked: socket.socket, parent: int) -> Birth | None:
    """Forks whoever is asked for until `asked` ends: then returns None, and in each fork its `Birth`.

    `parent` is the pid of whoever asks.
    """
    with asked, asked.makefile("rb") as lines:
        for line in lines:
            birth = Birth.read(line)
            try:
                middle = os.fork()
            except OSError as error:
                asked.sendall(b"0 %d\n" % (error.errno or errno.EAGAIN))
                continue
            if middle == 0:
                _fork_again(asked)
                break
            if os.waitpid(middle, 0)[1] != 0:
                asked.sendall(b"0 %d\n" % errno.ECHILD)
        else:
            return None
    _become(birth, parent)
    return birth


def _fork_again(asked: socket.socket) -> None:
    """Forks once more and ends, so that the fork, in which this returns, is the subreaper's child."""
    middle = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        asked.sendall(b"0 %d\n" % (error.errno or errno.EAGAIN))
        os._exit(0)
    if pid:
        asked.sendall(b"%d 0\n" % pid)
        os._exit(0)
    while os.getppid() == middle:
        time.sleep(0.001)


def _become(birth: Birth, parent: int) -> None:
    """Makes this fork what an exec would have made: nothing of the zygote's is left but its modules."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)  # the supervisor has ended, and nobody would end this process
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.closerange(3, 1 << 16)
    _rename([sys.executable, "-m", entry.__name__, birth.failure, birth.place, *birth.argv])
    os.environ.clear()
    os.environ.update(birth.environ)
    gc.enable()


def _rename(argv: list[str]) -> None:
    """Has ps show `argv`, as far as there is room in the command line that this process was started with."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc_pid_stat(5)
    if start and end > start:
        text = b"\0".join(word.encode(errors="surrogateescape") for word in argv)[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def main() -> int:
    """Serves whoever started this process; returns a fork's exit status, or its own."""
    core_files.leave_none()
    parent = os.getppid()
    prepare(SHARED)
    birth = serve(socket.socket(fileno=os.dup(0)), parent)
    if birth is None:
        return 0
    return entry.live(Path(birth.failure), birth.place, list(birth.argv))


if __name__ == "__main__":
    sys.exit(main())
