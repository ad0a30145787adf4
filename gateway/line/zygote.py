"""The zygote: a clean process that forks lines, so that they share its memory and inherit nothing.

    python -m gateway.line.zygote --fd FD

FD is an inherited socket; JSON objects, one a line, go both ways:

    → {"fork": {"name", "kind", "hall", "runtime", "sip_port"?, "rtp_port"?, "media_address"?,
                "public_address"?, "capacity"?}}
    ← {"forked": name, "pid": n}           or {"failed": name, "error": text}
    ← {"died": name, "pid": n, "status": n}     waitstatus_to_exitcode: negative is a signal
    → {"probe": {}}
    ← {"probe": n}                         how many calls this pjsua2 really takes

When the socket ends, so do the lines (SIGTERM: they say BYE) and then the zygote. When the zygote is
killed, the kernel tells the lines (PR_SET_PDEATHSIG). The boot's token comes in VOICEGATE_BOOT_TOKEN.
A line is never forked from a process with threads or an event loop: it would inherit their locks.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import pjsua2 as pj

from gateway.config.notes import named, note
from gateway.errors import LineError
from gateway.line import sip
from gateway.line.line_plan import plan_from

PR_SET_PDEATHSIG: Final = 1
PROBE_LIMIT: Final = 64
FAREWELL_S: Final = 2.0
"""How long lines have to end after SIGTERM before they are killed."""
TOKEN_VARIABLE: Final = "VOICEGATE_BOOT_TOKEN"  # noqa: S105  # the variable's name


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def count_calls() -> int:
    """How many calls this build of pjsua2 takes, by placing them: more than it takes is an error."""
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = 0
    config.uaConfig.maxCalls = PROBE_LIMIT
    endpoint.libInit(config)
    endpoint.audDevManager().setNullDev()
    transport = pj.TransportConfig()
    transport.boundAddress = "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    account_config = pj.AccountConfig()
    account_config.idUri = "sip:probe@127.0.0.1"
    account = pj.Account()
    account.create(account_config)
    calls: list[pj.Call] = []
    try:
        while len(calls) < PROBE_LIMIT:
            call = pj.Call(account)
            call.makeCall("sip:nobody@127.0.0.1:9", pj.CallOpParam(True))
            calls.append(call)
    except pj.Error:
        pass
    return len(calls)


class Zygote:
    def __init__(self, control: socket.socket, token: str) -> None:
        self._control = control
        self._token = token
        self._lines: dict[int, str] = {}
        self._inbox = b""
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
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            if "probe" in message:
                self._say(probe=self._probe())
            else:
                self._fork(message["fork"])
        except (ValueError, KeyError, TypeError) as error:
            self._say(failed=None, error=f"not a request: {line[:200]!r} ({error})")

    def _fork(self, request: Mapping[str, Any]) -> None:
        try:
            plan = plan_from(request, self._token)
        except LineError as error:
            self._say(failed=request.get("name"), error=str(error))
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._become_child(parent)
                sip.serve(plan)
            finally:
                os._exit(1)
        self._lines[pid] = plan.name
        self._say(forked=plan.name, pid=pid)

    def _become_child(self, parent: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(parent)
        self._control.close()  # else the supervisor would not see the zygote go
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _probe(self) -> int:
        read, write = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._become_child(parent)
                os.write(write, str(count_calls()).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            counted = answer.read()
        os.waitpid(pid, 0)
        return int(counted or b"0")

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
                self._say(died=name, pid=pid, status=code)

    def _say(self, **message: Any) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return  # its end will be read next

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
    gc.collect()
    gc.freeze()  # a collection in a line would write to, and so copy, every page it shares with us
    Zygote(control, token).run()


if __name__ == "__main__":
    main()
