"""baresip calls the gateway, as a person with a softphone would: registered user, its own codecs, real sound.

baresip takes no part in calls on 127.0.0.1, so the gateway and it live in a network of their own.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.gateway_process import House
from tests.e2e.registering import softphones_register_and_the_front_dies_under_them
from tests.needs import missing, need_program, need_sounds

pytestmark = pytest.mark.e2e

ADDRESS = "10.99.0.1"
MODULES = Path("/usr/lib/baresip/modules")
CLONE_NEWNET = 0x40000000


@pytest.fixture
def network() -> Iterator[str]:
    """A network namespace for this thread and what it starts; it ends with them. Yields its address."""
    need_program("ip", "iproute2")
    if os.geteuid() != 0:
        missing("a network of the test's own needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) != 0:
        os.close(before)
        missing(f"a network of the test's own: {os.strerror(ctypes.get_errno())}")
    try:
        for words in ("link set lo up", f"addr add {ADDRESS}/32 dev lo", "route add default dev lo"):
            subprocess.run(["ip", *words.split()], check=True)
        yield ADDRESS
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def page_shows(certificate: Path, house: House) -> None:
    """The page, over https, shows the same certificate, which its own file vouches for."""
    trusts = ssl.create_default_context(cafile=certificate)
    with urllib.request.urlopen(f"https://{ADDRESS}:{house.https_port}/healthz", context=trusts) as answer:
        assert json.load(answer) == {"alive": True}
    shown = ssl.get_server_certificate((ADDRESS, house.https_port))
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).digest().hex(":").upper()
    assert fingerprint in re.sub(r"[^0-9A-F:]", "", house.log_path.read_text()), "the start panel says it"


def softphone(folder: Path, *, password: str, trusts: Path | None = None, encrypts: str = "") -> Path:
    """A baresip that says a person's sentence, over and over, and keeps what it hears.

    `encrypts`: its name for a kind of SRTP; without one it has none.
    """
    phone = folder / "baresip"
    phone.mkdir(parents=True)
    sentence = need_sounds() / "vm-goodbye.wav"
    say = [need_program("sox"), sentence, "-r", "8000", phone / "say.wav", "pad", "2", "20"]
    subprocess.run(say, check=True)
    modules = [*(["srtp"] if encrypts else []), "account", "g711", "aufile", "sndfile"]
    (phone / "config").write_text(
        f"sip_listen {ADDRESS}:5070\naudio_source aufile,{phone}/say.wav\nsnd_path {phone}\n"
        f"module_path {MODULES}\n"
        + "".join(f"module {name}.so\n" for name in modules)
        + "module_app menu.so\n"
        + (f"sip_cafile {trusts}\nsip_verify_server yes\n" if trusts else "")
    )
    kind = f";mediaenc={encrypts}" if encrypts else ""
    (phone / "accounts").write_text(f"<sip:alice@{ADDRESS}>;auth_pass={password};regint=0{kind}\n")
    (phone / "contacts").write_text("")
    return phone


def dial(phone: Path, uri: str, seconds: int, *more: str) -> str:
    """Its log of the call; it hangs up when its time is over."""
    command = [
        need_program("baresip"),
        "-4",
        "-n",
        "lo",
        "-f",
        phone,
        "-e",
        f"/dial {uri}",
        "-t",
        str(seconds),
        *more,
    ]
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 20, check=False
    )
    return run.stdout + run.stderr


def heard_s(phone: Path) -> float:
    """Seconds of sound in what it kept."""
    with wave.open(str(next(phone.glob("*-dec.wav")))) as file:
        sound = np.frombuffer(file.readframes(1 << 24), "<i2") / 32768
        frame = file.getframerate() // 50
    loud = np.abs(sound[: len(sound) // frame * frame].reshape(-1, frame)).max(axis=1) > 0.01
    return float(loud.sum() * 0.02)


@pytest.mark.long("three calls in real time, by a program that starts slowly")
def test_a_softphone_with_a_password_has_a_conversation(network: str, tmp_path: Path) -> None:
    house = House(tmp_path / "house", host="0.0.0.0", wide_calls=0, web_lines=0)
    house.folder.mkdir()
    house.start()
    try:
        (tmp_path / "password").write_text("correct-horse\n")
        add = [sys.executable, "-m", "gateway.cli", "sip", "user", "add", "alice", "--password-from"]
        subprocess.run([*add, tmp_path / "password"], check=True, env=house.environ)
        own = house.folder / "data" / "tls.pem"
        for number, (transport, port) in enumerate((("udp", house.sip_port), ("tls", house.sip_tls_port)), 1):
            phone = softphone(tmp_path / transport, password="correct-horse", trusts=own)
            log = dial(phone, f"sip:demo@{network}:{port};transport={transport}", 6)
            assert "Call established" in log, log
            house.wait_for("its end", lambda n=number: len(house.events("call.ended")) == n)
            ended = house.events("call.ended")[-1]
            assert ended["how"] == "caller hung up"
            assert ended["spoken_s"] > 3
            assert heard_s(phone) > 2, "the disclosure and the greeting"
        page_shows(own, house)
        stranger = softphone(tmp_path / "stranger", password="battery-staple")
        log = dial(stranger, f"sip:demo@{network}:{house.sip_port}", 2)
        assert "401" in log, log
        assert "Call established" not in log
        for_help = softphone(tmp_path / "help", password="correct-horse")
        log = dial(for_help, f"sip:112@{network}:{house.sip_port}", 2)
        assert "session closed" in log, log  # baresip takes any 3xx for a way on, and finds none
        assert house.events("call.refused")[-1]["status"] == 380
        softphones_register_and_the_front_dies_under_them(
            network, house, tmp_path / "register", "correct-horse"
        )
    finally:
        house.stop()
