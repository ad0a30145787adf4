"""`voicegate call --trunk`: the test phone dials through a trunk, which is a telephone of the test's."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.caller.call_command import call
from gateway.cli.caller.caller_sound import read_wav, write_wav
from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.edge.trunks.trunk_booth import TrunkBooth
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import Message, RawPhone
from tests.needs import HANGS_S

NUMBER = "+4930123"
CHALLENGE = 'Digest realm="t", nonce="n1", qop="auth", algorithm=SHA-256'
SECRET = "geheim und lang"


def described(folder: Path, port: int, more: str = "") -> None:
    (folder / "trunks.toml").write_text(
        f'[[trunk]]\nname = "carrier"\nhosts = ["127.0.0.1:{port}"]\nprefixes = ["+4930"]\n{more}'
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOICEGATE_DATA_DIR", str(tmp_path))
    return tmp_path


async def command(*argv: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, call, ["--trunk", "carrier", *argv])


async def picks_up(trunk: RawPhone, invite: Message) -> None:
    port = re.search(r"m=audio (\d+)", invite.body)
    assert port is not None
    trunk.media = ("127.0.0.1", int(port[1]))
    trunk.answer(invite, "180 Ringing")
    trunk.answer(invite, body=trunk.offer())
    await trunk.request("ACK", HANGS_S)


async def test_both_hear_each_other_through_a_trunk_that_wants_a_password(folder: Path) -> None:
    trunk = await RawPhone().open()
    (folder / "p").write_text(SECRET)
    (folder / "p").chmod(0o600)
    described(folder, trunk.sip_port, 'user = "u1"\npassword_file = "p"\nnumbers = ["+4930777"]\n')
    question, frame = bytearray(), tone(440, rate_hz=8000)
    for n in range(50):
        question += frame(n)
    write_wav(folder / "q.wav", bytes(question), 8000)
    heard = folder / "heard.wav"
    argv = (
        "--play",
        str(folder / "q.wav"),
        "--at",
        "0.2",
        "--duration",
        "3",
        "--record",
        str(heard),
        "--called-agrees",
    )
    calling = asyncio.create_task(command(*argv, NUMBER))
    try:
        trunk.answer(await trunk.request("OPTIONS", HANGS_S))
        trunk.answer(await trunk.request("REGISTER", HANGS_S))
        first = await trunk.request("INVITE", HANGS_S)
        trunk.answer(
            first, "407 Proxy Authentication Required", headers=f"Proxy-Authenticate: {CHALLENGE}\r\n"
        )
        invite = await trunk.request("INVITE", HANGS_S)
        assert 'username="u1"' in invite.headers["proxy-authorization"]
        assert f"sip:{NUMBER}@127.0.0.1" in invite.start
        assert "<sip:+4930777@127.0.0.1>" in invite.headers["from"]
        await picks_up(trunk, invite)
        trunk.talk(tone(660, rate_hz=8000))
        async with asyncio.timeout(HANGS_S):
            while not is_tone(await trunk.hears(0.3, HANGS_S), 440, 8000):
                pass
        await trunk.request("BYE", HANGS_S)
        said = await calling
    finally:
        trunk.close()
    assert said.exit_code == 0, said.output
    for line in (
        "ok    OPTIONS",
        "ok    REGISTER",
        "ok    INVITE: answered 200",
        f"{NUMBER}: answered after",
    ):
        assert line in said.output
    assert SECRET not in said.output
    assert "trunk.answered" not in said.output, "what a program reads is no log"
    sound = read_wav(heard, 8000)
    assert any(is_tone(sound[n : n + 2400].tobytes(), 660, 8000) for n in range(0, len(sound) - 2400, 800))


async def test_it_says_at_which_step_the_call_dies_and_shows_the_messages(folder: Path) -> None:
    trunk = await RawPhone().open()
    described(folder, trunk.sip_port)
    calling = asyncio.create_task(command("--json", NUMBER))
    trunk.answer(await trunk.request("OPTIONS", HANGS_S))
    trunk.answer(await trunk.request("INVITE", HANGS_S), "486 Busy Here")
    await trunk.request("ACK", HANGS_S)
    said = await calling
    trunk.close()
    assert said.exit_code == 1
    assert "FAIL  INVITE: answered 486 Busy Here" in said.stderr
    assert re.search(r"s → INVITE .*s ← SIP/2.0 486 Busy Here.*s → ACK", said.stderr, re.DOTALL)
    assert json.loads(said.stdout)["status"] == 486


@pytest.mark.parametrize(
    ("more", "argv", "why"),
    [
        (
            "",
            ("+881123",),
            "+881123 may not be called by carrier: the number has none of the trunk's prefixes",
        ),
        ("", ("112",), "emergency"),
        ("", ("sip:demo@127.0.0.1",), "is not a number"),
        ("", ("--record", "a.wav", NUMBER), "must have agreed"),
        ("", ("--user", "u", NUMBER), "trunks.toml's to say"),
        ("", ("--script", "say.txt", NUMBER), "a synthetic voice, which leaves by no trunk"),
    ],
    ids=("prefix", "emergency", "uri", "record", "user", "say"),
)
async def test_what_may_not_leave_does_not(folder: Path, more: str, argv: tuple[str, ...], why: str) -> None:
    trunk = await RawPhone().open()
    described(folder, trunk.sip_port, more)
    (folder / "say.txt").write_text("say good morning\n")
    said = await command(*(str(folder / one) if one == "say.txt" else one for one in argv))
    assert said.exit_code == 1
    assert why in said.output
    assert trunk._messages.empty()
    trunk.close()


@pytest.mark.parametrize(
    ("beside", "word", "why"), [(2, True, "has 2 calls already"), (0, False, "Forbidden")]
)
async def test_a_booth_keeps_the_trunks_cap_and_takes_calls_of_its_phone_alone(
    beside: int, word: bool, why: str
) -> None:
    trunk, phone = await RawPhone().open(), await RawPhone().open()
    described = Trunk(name="c", hosts=(TrunkHost("127.0.0.1", trunk.sip_port),), prefixes=("+4930",))
    booth = TrunkBooth(described, beside=beside)
    await booth.open()
    try:
        user, _, place = booth.uri_of(NUMBER).removeprefix("sip:").partition("@")
        phone.line, phone.dials = ("127.0.0.1", int(place.partition(":")[2])), user if word else NUMBER
        phone.invite("")
        answer = await phone.final()
        assert (answer.status, why in answer.reason) == (403, True)
        assert trunk._messages.empty()
    finally:
        await booth.close()
        trunk.close()
        phone.close()
