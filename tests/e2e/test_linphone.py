"""linphonec calls the gateway: a softphone with codecs and habits of its own, without a sound card."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import loudness
from tests.e2e.gateway_process import House, free_port
from tests.needs import need_program

pytestmark = pytest.mark.e2e

HEARD_S = 4.0
BYTES_PER_S = 96_000
"""It offers Opus first, and records 48 kHz, 16 bit."""


class Linphone:
    """One linphonec, told what to do by its keyboard; `log` is what it has shown."""

    def __init__(self, folder: Path, more: str = "", tls_port: int = 0, tcp_port: int = 0) -> None:
        """`more`: further lines of its settings. `tls_port`, `tcp_port`: 0 for none, -1 for any."""
        (folder / ".local" / "share" / "linphone").mkdir(parents=True)
        rc = folder / "linphonerc"
        rc.write_text(
            f"[sip]\nsip_port={free_port()}\nsip_tcp_port={tcp_port}\nsip_tls_port={tls_port}\n"
            f"bind_address=127.0.0.1\ncontact=sip:alice@127.0.0.1\n{more}"
            f"[rtp]\naudio_rtp_port={free_port() & ~1}\n"
        )
        self.log = ""
        self._process = subprocess.Popen(
            [need_program("linphonec", "linphone-cli"), "-c", rc, "-l", folder / "log"],
            env={"HOME": str(folder), "PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while part := self._process.stdout.read(1):
            self.log += part

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        try:
            self.type("quit")
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._reading.join()


def test_linphonec_hears_the_gateway(house: House, tmp_path: Path) -> None:
    heard = tmp_path / "heard.wav"
    phone = Linphone(tmp_path / "home")
    try:
        for line in ("ipv6 disable", "soundcard use files", f"record {heard}", f"call {house.uri}"):
            phone.type(line)
        house.wait_for(
            "its media", lambda: "Media streams established" in phone.log or " error." in phone.log
        )
        assert "Media streams established" in phone.log, phone.log
        whole = HEARD_S * BYTES_PER_S
        house.wait_for("its recording", lambda: heard.exists() and heard.stat().st_size > whole, 20.0)
        phone.type("terminate")
        house.wait_for("its end", lambda: "ended (No error)" in phone.log)
    finally:
        phone.close()
    assert (loudness(heard) > 0.01).sum() * 0.02 > 0.5 * HEARD_S, "the disclosure"
    house.wait_for("its end in the list", lambda: "how" in _latest(house))
    assert _latest(house)["how"] == "caller hung up"


def _latest(house: House) -> dict[str, Any]:
    return max(house.calls(), key=lambda call: float(call["started_at"]))
