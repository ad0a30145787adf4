"""baresip under AES-GCM: it never offers it, but takes it from an offer of ours when it is rung over TLS."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.captures import HEARD, alike, comes_to_hear, sentence, spoken
from tests.e2e.gateway_process import House
from tests.e2e.registering import Softphone, bindings
from tests.e2e.test_baresip import network  # noqa: F401  # a fixture
from tests.e2e.test_telephones_rung import PASSWORD, alices_house, handed_over
from tests.needs import HANGS_S, need_program, need_sounds

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.prove,
    pytest.mark.long("a whole gateway, and a softphone that starts slowly"),
]
CONTROL = 5555


def told(network: str, command: str) -> None:  # noqa: F811
    """baresip does as its control socket says (netstrings of JSON)."""
    said = json.dumps({"command": command}).encode()
    with socket.create_connection((network, CONTROL), timeout=HANGS_S) as control:
        control.sendall(b"%d:%s," % (len(said), said))
        control.recv(4096)


def recipe(gateway: str, certificate: str) -> list[str]:
    """The lines that the docs have a reader write."""
    text = (Path(__file__).parents[2] / "docs" / "trunks" / "baresip.md").read_text()
    for name, filled in (("GATEWAY", gateway), ("CERTIFICATE", certificate), ("PASSWORD", PASSWORD)):
        text = text.replace(name, filled)
    return "\n".join(re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)).splitlines()


async def acknowledged(house: House, phone: Softphone, offers: int) -> None:
    """So many offers, of either side, were answered."""

    def done() -> bool:
        return len(re.findall(r"CSeq: \d+ ACK", phone.log.read_text(errors="replace"))) >= offers

    await asyncio.to_thread(house.wait_for, "an ACK", done, HANGS_S)


async def test_baresip_is_rung_with_aes_gcm_holds_and_comes_back(network: str, tmp_path: Path) -> None:  # noqa: F811
    ours, theirs = (need_sounds() / f"{name}.wav" for name in ("cannot-complete-as-dialed", "agent-pass"))
    file = tmp_path / "say.wav"
    repeated = [need_program("sox"), theirs, file, "repeat", "20"]
    await asyncio.to_thread(subprocess.run, repeated, check=True, timeout=HANGS_S)
    with alices_house(tmp_path, network, srtp="required", host="0.0.0.0") as (house, authority):
        phone = Softphone(
            tmp_path / "phone", 5070, f"{network}:{house.sip_tls_port}", "tls", PASSWORD,
            more=";answermode=auto;mediaenc=srtp-mand",
            config=f"module srtp.so\nmodule aufile.so\nmodule sndfile.so\nmodule ctrl_tcp.so\n"
            f"ctrl_tcp_listen {network}:{CONTROL}\naudio_source aufile,{file}\nsnd_path {tmp_path}/phone\n"
            f"sip_cafile {authority.ca}\nsip_verify_server yes\n",
        )  # fmt: skip
        written = "\n".join((tmp_path / "phone" / file).read_text() for file in ("config", "accounts"))
        wanted = recipe(f"{network}:{house.sip_tls_port}", str(authority.ca))
        assert len(wanted) == 6
        assert [line for line in wanted if line not in written] == []
        try:
            await asyncio.to_thread(house.wait_for, "its flow", lambda: len(bindings(house)) == 1, HANGS_S)
            async with handed_over(house, network) as caller:
                said = spoken(theirs)
                caller.talk(sentence(spoken(ours)))
                await comes_to_hear(caller, said)
                await caller.hears(4.0, HANGS_S)  # meanwhile it hears the whole of our sentence
                await asyncio.to_thread(told, network, "hold")
                await acknowledged(house, phone, 2)
                await caller.hears(1.0, HANGS_S)
                await asyncio.to_thread(told, network, "resume")
                await acknowledged(house, phone, 3)
                del caller.pcm[:]
                await comes_to_hear(caller, said)
        finally:
            await asyncio.to_thread(phone.end)
        log = phone.log.read_text(errors="replace")
        assert "SRTP is Enabled (cryptosuite=AEAD_AES_256_GCM)" in log
        assert "a=sendonly" in log
        (kept,) = (tmp_path / "phone").glob("*-dec.wav")  # up to the hold: it records nothing after one
        assert alike(spoken(kept).astype("<i2").tobytes(), spoken(ours)) > HEARD
        assert "failed to decrypt" not in log, "and it would say so, of each packet"
        assert not house.events("srtp.refused"), house.events("srtp.refused")
