"""sipp calls the whole gateway: ordinary calls, with media captured off the wire."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.gateway_process import House, free_port
from tests.e2e.sipp_runs import (
    ACK,
    ANSWERED,
    BYE,
    DTMF,
    REFUSED_ACK,
    SPEAK,
    THEIR_BYE,
    TRYING,
    Sipp,
    all_free,
    captured,
    do,
    events,
    has,
    hop,
    how_they_ended,
    invite,
    last_said,
    pause,
    recognised,
    recv,
    sdp,
    speech_s,
    within,
)
from tests.needs import missing, need_program, need_sounds

pytestmark = pytest.mark.e2e


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A person's recorded sentence, as sipp wants it."""
    human = need_sounds() / "vm-goodbye.wav"
    raw = ["-t", "raw", "-r", "8000", "-e", "mu-law", "-b", "8", "-c", "1", str(tmp_path / "sound.ul")]
    subprocess.run([need_program("sox"), human, *raw], check=True)
    return tmp_path / "sound.ul"


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_a_person_is_answered_with_speech(house: House, tmp_path: Path, sound: Path, transport: str) -> None:
    all_free(house)
    call = Sipp([invite(), ANSWERED, ACK, SPEAK, pause(6), BYE], tmp_path, transport)
    with captured(tmp_path, call.rtp_port) as packets:
        call.run(house)
        heard = packets()
    assert len(heard.payloads) > 200
    between = np.diff(heard.times)
    assert 0.015 < np.median(between) < 0.025, "a packet each 20 ms"
    assert np.max(between) < 0.5, "no hole in what we send that a busy machine does not make"
    assert speech_s(heard.sound) > 2, "the disclosure and the greeting"
    assert np.abs(heard.sound).max() < 0.99
    assert all_free(house) < 2


def test_a_person_says_goodbye_and_is_bidden_goodbye(house: House, tmp_path: Path, sound: Path) -> None:
    """A human's recorded word in; what comes back is known by a recogniser, not by what we meant to say."""
    all_free(house)
    call = Sipp([invite(), ANSWERED, ACK, pause(11.5), SPEAK, THEIR_BYE], tmp_path)
    with captured(tmp_path, call.rtp_port) as packets:
        call.run(house)
        heard = packets()
    assert recognised(last_said(heard.sound)) == "thank you for calling goodbye"


def test_a_caller_without_an_offer_is_heard_too(house: House, tmp_path: Path, sound: Path) -> None:
    steps = [invite(""), TRYING, recv(200, has("m=audio"), options='rrs="true"'), within("ACK", 1, sdp())]
    call = Sipp([*steps, SPEAK, pause(3), BYE], tmp_path)
    with captured(tmp_path, call.rtp_port) as packets:
        call.run(house)
        assert speech_s(packets().sound) > 1


def test_a_cancelled_call_leaves_nothing(house: House, tmp_path: Path) -> None:
    steps = [invite(), recv(100), hop("CANCEL"), recv(200), recv(487), REFUSED_ACK, pause(0.3)]
    Sipp(steps, tmp_path).run(house)
    all_free(house, 1.0)
    house.wait_for("its end", lambda: not [c for c in house.calls() if c["state"] != "ended"])


def test_hold_silences_us_and_resume_brings_us_back(house: House, tmp_path: Path, sound: Path) -> None:
    hold = sdp(direction="sendonly", version=2)
    steps = [
        *(invite(), ANSWERED, ACK, SPEAK, pause(2)),
        *(within("INVITE", 2, hold), TRYING, recv(200, has("a=recvonly")), within("ACK", 2), pause(2)),
        *(within("INVITE", 3, sdp(version=3)), TRYING, recv(200, has("a=sendrecv")), within("ACK", 3)),
        *(pause(2), BYE),
    ]
    call = Sipp(steps, tmp_path)
    with captured(tmp_path, call.rtp_port) as packets:
        call.run(house)
        gap = np.max(np.diff(packets().times))
    assert 1.7 < gap < 2.5, "nothing is sent to who holds"
    held = [(event["data"]["sending"], event["data"]["receiving"]) for event in events(house, "hold")]
    assert (False, True) in held, held
    assert held[-1] == (True, True)


def test_keys_pressed_arrive(house: House, tmp_path: Path) -> None:
    if not DTMF.exists():
        missing(f"{DTMF} is not there (Debian: apt-get install sip-tester)")
    press = do(f'<exec play_pcap_audio="{DTMF}"/>')
    body = sdp(port="[media_port]")
    # pressed after the greeting: what is pressed before is kept for the verb that asks
    Sipp([invite(body), ANSWERED, ACK, pause(9), press, pause(1.5), BYE], tmp_path).run(house)
    assert [event["data"]["digit"] for event in events(house, "dtmf")] == ["1"]


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_the_scenario_that_sipp_brings_along(house: House, tmp_path: Path, transport: str) -> None:
    """Its ACK and BYE go to the address that it dialled, without Route."""
    command = [need_program("sipp", "sip-tester"), f"127.0.0.1:{house.sip_port}", "-sn", "uac", "-s", "demo"]
    command += ["-i", "127.0.0.1", "-mi", "127.0.0.1", "-mp", str(free_port() & ~1), "-t", transport]
    command += ["-p", str(free_port()), "-m", "2", "-l", "2", "-d", "500", "-timeout", "20", "-timeout_error"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr
    all_free(house)
    assert how_they_ended(house, 2) == ["caller hung up"] * 2


def test_each_request_within_a_call_has_its_own_answer(house: House, tmp_path: Path) -> None:
    pings = [("OPTIONS", 200), ("SUBSCRIBE", 489), ("NOTIFY", 489), ("PUBLISH", 405), ("MESSAGE", 405),
             ("INFO", 200), ("FROBNICATE", 501), ("REGISTER", 405)]  # fmt: skip
    steps = [within(method, cseq) + recv(status) for cseq, (method, status) in enumerate(pings, 2)]
    steps.append(
        within("INVITE", 20, sdp("3", version=2)) + TRYING + recv(488) + hop("ACK", 20, "[peer_tag_param]")
    )
    steps.append(
        within("INVITE", 21, sdp("9", version=2)) + TRYING + recv(488) + hop("ACK", 21, "[peer_tag_param]")
    )
    steps.append(within("INVITE", 22, sdp("8", version=2)) + TRYING + recv(200) + within("ACK", 22))
    wrong = within("BYE", 23).replace(";tag=[pid]S", ";tag=[pid]T") + recv(481)
    old = within("BYE", 9).replace('retrans="500"', "") + recv(500)
    Sipp([invite(), ANSWERED, ACK, *steps, wrong, old, within("BYE", 24) + recv(200)], tmp_path).run(house)
    assert how_they_ended(house) == ["caller hung up"]
