"""The process that the others are forked from, so that what they import is in memory once.

It imports what any of them needs, then forks one for each request that comes by a socket. A line of JSON asks
(`Birth`), a line answers: the pid and 0, or 0 and an errno. The fork's parent is whoever asked, which has to
be a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), not the zygote: so each outlives the zygote, dies with its
parent, and is waited for by it. A fork is what a process of its own is that `gateway.run.entry` began: with
its environment, command line, session and limits, and without any descriptor but the log's. The zygote holds
no keys, and has one thread.

The first is a fork of the supervisor, which so shares its memory too; should it die, the next is

    python -m gateway.run.zygote MODULES…

with the socket as its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from consent import core_files
from gateway.run import entry
from model.ears import ONE_THREAD

SHARED: Final = (
    "gateway.front.__main__",
    "gateway.hall.__main__",
    "gateway.line.web",
    "gateway.rtp.sip_process",
    "gateway.run.office_child",
    "gateway.run.prepare",
    "gateway.run.supervisor",
    "model.ears.ears_process",
    "model.embedded.engine",
    "model.server",
    # what their libraries import at the first request
    "anyio._backends._asyncio",
    "httpcore",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)
"""What processes of a house begin with. A module that only one of them uses costs no more here than there.
None of these may begin a thread (as onnxruntime does), since a fork has none but its own."""
PR_SET_PDEATHSIG: Final = 1
M_ARENA_MAX: Final = -8


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
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # another C library has no such functions
        libc.mallopt(M_ARENA_MAX, 1)  # glibc's heap per thread costs the hall 10 MB
    os.environ.update(ONE_THREAD)  # numpy reads it when it is imported
    entry.leave_out_unused()
    gc.disable()
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: S112  # whoever needs it imports it again, and says what is wrong
            continue
    gc.collect()
    gc.freeze()
    gc.enable()
    with contextlib.suppress(AttributeError):
        libc.malloc_trim(0)  # a fork would copy each page of which a part is free


def serve(asked: socket.socket, parent: int) -> int:
    """Forks whoever is asked for until `asked` ends; in each fork, calls what it was asked for.

    `parent` is the pid of whoever asks. Returns the exit status of the process that it returns in.
    """
    os.setsid()  # a terminal's Ctrl-C is the supervisor's to hear
    _die_with(parent)
    told, tell = os.pipe()
    os.set_blocking(told, False)
    with asked, asked.makefile("rb") as lines:
        for line in lines:
            birth = Birth.read(line)
            try:
                middle = os.fork()
            except OSError as error:
                asked.sendall(b"0 %d\n" % (error.errno or errno.EAGAIN))
                continue
            if middle == 0:
                _fork_again(tell)
                break
            os.waitpid(
                middle, 0
            )  # until then the fork is no child of whoever asked, who could not wait for it
            try:
                answer = os.read(told, 64)
            except BlockingIOError:  # it was killed before it had forked
                answer = b"0 %d\n" % errno.ECHILD
            asked.sendall(answer)
        else:
            return 0
    _become(birth, parent)
    return entry.live(Path(birth.failure), birth.place, list(birth.argv))


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)  # the supervisor has ended, and nobody would end this process


def _fork_again(tell: int) -> None:
    """Forks once more and ends, so that the fork, in which this returns, is the subreaper's child.

    Tells `tell` what `serve` answers.
    """
    middle = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.write(tell, b"0 %d\n" % (error.errno or errno.EAGAIN))
        os._exit(0)
    if pid:
        os.write(tell, b"%d 0\n" % pid)
        os._exit(0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
    while os.getppid() == middle:
        time.sleep(0.001)


def _become(birth: Birth, parent: int) -> None:
    """Makes this fork what an exec would have made: nothing of the zygote's is left but its modules."""
    _die_with(parent)
    os.setsid()
    alone(None)
    os.environ.clear()
    os.environ.update(birth.environ)
    _rename([sys.executable, "-m", entry.__name__, birth.failure, birth.place, *birth.argv])


def alone(kept: int | None) -> None:
    """Closes every descriptor but standard output and error; standard input is `kept`, or nothing."""
    stdin = os.open(os.devnull, os.O_RDONLY) if kept is None else kept
    os.dup2(stdin, 0)
    os.closerange(3, 1 << 20)


def _rename(argv: list[str]) -> None:
    """Has ps show `argv`, as far as there is room where the first command line and environment lie.

    No variable may be read from there any more.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end, environ, environ_end = map(int, fields[45:49])  # arg_start to env_end, proc_pid_stat(5)
    if not 0 < start < end:
        return
    words = [word.encode(errors="surrogateescape") for word in argv]
    text = b"\0".join(words) + b"\0"
    if len(text) > end - start and environ == end:  # the kernel then shows all until the first zero
        text = b" ".join(words)[: environ_end - start - 1] + b"\0"
    else:
        text = text[: end - start - 1].ljust(end - start, b"\0")
    ctypes.memmove(start, text, len(text))


def end(status: int) -> NoReturn:
    """Ends this process as its interpreter would, but for who waits further up in the supervisor's code."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does: waits for threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> NoReturn:
    """Serves whoever started this process."""
    core_files.leave_none()
    parent = os.getppid()
    prepare(sys.argv[1:])
    end(serve(socket.socket(fileno=os.dup(0)), parent))


if __name__ == "__main__":
    main()
