"""The zygote: a clean process that forks lines, so that they share its memory and inherit nothing.

    python -m gateway.line.zygote --fd FD

FD is an inherited socket; `gateway.line.zygote_messages` are what goes both ways.

When the socket ends, so do the lines (SIGTERM: they say BYE) and then the zygote. When the zygote is
killed, the kernel tells the lines (PR_SET_PDEATHSIG). The boot's token comes in VOICEGATE_BOOT_TOKEN.
A line is never forked from a process with threads or an event loop: it would inherit their locks.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final

from gateway.config import failure
from gateway.config.notes import named, note
from gateway.errors import OtherVersion, RpcError
from gateway.ipc import codec, envelope
from gateway.ipc.envelope import Ask, Handlers, Tell
from gateway.ipc.framing import Unframer, framed
from gateway.ipc.hello import Hello, TickHello, admitted
from gateway.line import sip
from gateway.line.zygote_messages import ForkLine, LineDied

PR_SET_PDEATHSIG: Final = 1
FAREWELL_S: Final = 2.0
"""How long lines have to end after SIGTERM before they are killed."""
TOKEN_VARIABLE: Final = "VOICEGATE_BOOT_TOKEN"  # noqa: S105  # the variable's name


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


class Zygote:
    def __init__(self, control: socket.socket, token: str) -> None:
        self._control = control
        self._token = token
        self._lines: dict[int, str] = {}
        self._inbox = Unframer()
        self._greeted = False
        self._handlers = Handlers([ForkLine.handled_at_once_by(Zygote.fork)])
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._control.shutdown(socket.SHUT_RD))
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._wake_read], [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, 512)
                self._reap()
            if self._control.fileno() in ready and not self._read():
                break
        self._farewell()

    def _read(self) -> bool:
        try:
            data = self._control.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return False
        try:
            for body in self._inbox.feed(data):
                self._take(codec.unpacked(body))
        except RpcError as error:
            note("error", "zygote.broken", error=str(error))
            if isinstance(error, OtherVersion):
                self._say(envelope.refused(str(error)))
            return False
        return True

    def _take(self, said: dict[str, Any]) -> None:
        if not self._greeted:
            admitted(Hello, said, self._token)
            self._greeted = True
            return
        answer = envelope.answer_at_once(self._handlers, self, said)
        if answer is not None:
            self._say(answer)

    def fork(self, asked: ForkLine) -> int:
        """Forks a line; its process id."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._become_child(parent)
                sip.serve(asked.plan)
            except BaseException as error:
                failure.tell(asked.plan.runtime.failure(asked.plan.name), error)
            finally:
                os._exit(1)
        self._lines[pid] = asked.plan.name
        return pid

    def _become_child(self, parent: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(parent)
        self._control.close()  # else the supervisor would not see the zygote go
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _reap(self) -> None:
        while self._lines:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (name := self._lines.pop(pid, None)) is not None:
                code = os.waitstatus_to_exitcode(status)
                if code:
                    note("error", "line.died", line=name, pid=pid, status=code)
                self._say(envelope.told(LineDied(name, pid, code)))

    def _say(self, body: bytes) -> None:
        with contextlib.suppress(OSError):  # its end will be read next
            self._control.sendall(framed(body))

    def _farewell(self) -> None:
        for pid in self._lines:
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + FAREWELL_S
        while self._lines and (left := end - time.monotonic()) > 0:
            select.select([self._wake_read], [], [], left)
            self._reap()
        for pid in self._lines:
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    try:
        control = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    except (IndexError, ValueError, OSError):
        sys.exit("gateway.line.zygote is started by the supervisor, which gives it a socket's number")
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        sys.exit(f"{TOKEN_VARIABLE} is not set")
    named("zygote")
    os.set_inheritable(control.fileno(), False)
    codec.prepare([Hello, TickHello, *Tell.__subclasses__(), *Ask.__subclasses__()])
    gc.collect()
    gc.freeze()  # a collection in a line would write to, and so copy, every page it shares with us
    Zygote(control, token).run()


if __name__ == "__main__":
    main()
