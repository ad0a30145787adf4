"""Networks of a test's own: this thread, and what it starts, is outside; browsers are behind routers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.needs import missing, need_program

CLONE_NEWNET = 0x40000000
COMMAND_S = 20
GATEWAY = "203.0.113.1"
"""RFC 5737: nobody's."""
INSIDE = "vg-inside"


def ip(*words: str) -> None:
    """A command of iproute2's."""
    subprocess.run(["ip", *words], check=True, timeout=COMMAND_S)


@contextlib.contextmanager
def networks(spaces: Sequence[str], ways: str, rules: Mapping[str, str]) -> Iterator[None]:
    """Makes namespaces, then what leads from one to another (`ip` commands, one a line), then each router's
    nftables rules. Needs root."""
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        need_program(program, package)
    if os.geteuid() != 0:
        missing("networks of the test's own need root")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) != 0:
        os.close(before)
        missing(f"networks of the test's own: {os.strerror(ctypes.get_errno())}")
    try:
        for name in spaces:
            ip("netns", "add", name)
        for words in ways.strip().splitlines():
            ip(*words.split())
        for router, text in rules.items():
            command = ["ip", "netns", "exec", router, "nft", "-f", "-"]
            subprocess.run(command, input=text, text=True, check=True, timeout=COMMAND_S)
        yield
    finally:
        for name in spaces:
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=COMMAND_S)
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def browser_inside(folder: Path) -> Path:
    """A Chromium that runs in the namespace `INSIDE`."""
    program = folder / "chromium"
    program.write_text(f'#!/bin/sh\nexec ip netns exec {INSIDE} {need_program("chromium")} "$@"\n')
    program.chmod(0o755)
    return program
