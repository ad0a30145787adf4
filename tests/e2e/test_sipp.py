"""sipp calls the whole gateway: every way a call can go, with media captured off the wire."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pytest
import soxr

from gateway.cli.testphone import place_call
from model.api import RATE_HZ
from model.embedded.evidence import weigh
from model.embedded.recogniser import Recogniser
from tests.e2e.gateway_process import House, free_port
from tests.gateway.line.rawphone import Coder
from tests.needs import missing, need_program, need_sounds

pytestmark = pytest.mark.e2e

PARTS = Path(__file__).with_name("sipp")
DTMF = Path("/usr/share/sip-tester/dtmf_2833_1.pcap")
SDP = "Content-Type: application/sdp"
SENTENCES = [
    "thank you for calling goodbye",
    "sorry i did not understand that could you say it again",
    "are you still there you can ask about our opening hours or where we are",
    "we are open monday to friday from nine in the morning to six in the evening and saturday",
    "did you ask about ending the call please say yes or no",
    "i cannot hear you",
]
"""What the demo may say to one word."""
LINEAR = np.frombuffer(Coder("PCMU").decode(bytes(range(256))), np.int16)


# ── scenarios, put together from the parts in tests/e2e/sipp ─────────────────────────────────────────────


def part(name: str, **said: Any) -> str:
    text = Template((PARTS / f"{name}.xml").read_text()).substitute(said)
    return re.sub(
        r"\n[ ]*\n(?=[ ]+(Content-Length|Contact))", "\n", text
    )  # no blank line where nothing is said


def sdp(
    codecs: str = "0", direction: str = "sendrecv", version: int = 1, port: str = "[rtpstream_audio_port]"
) -> str:
    return part("sdp", codecs=codecs, direction=direction, version=version, port=port).strip()


def invite(body: str | None = None, extra: str = "", cseq: int = 1) -> str:
    body = sdp() if body is None else body
    return part(
        "invite", body=body, extra="\n      ".join(filter(None, [extra, SDP if body else ""])), cseq=cseq
    )


def within(method: str, cseq: int, body: str = "", extra: str = "") -> str:
    extra = "\n      ".join(filter(None, [extra, SDP if body else ""]))
    retrans = "" if method == "ACK" else ' retrans="500"'
    return part("within", method=method, cseq=cseq, body=body, extra=extra, retrans=retrans)


def hop(method: str, cseq: int = 1, to: str = "") -> str:
    """An INVITE's CANCEL, or the ACK of its refusal."""
    return part("hop", method=method, cseq=cseq, to=to)


def recv(status: int, *actions: str, options: str = "") -> str:
    return f'  <recv response="{status}" {options}>\n    <action>{"".join(actions)}</action>\n  </recv>\n'


def has(pattern: str) -> str:
    """An action: the message must match."""
    return f'<ereg regexp="{pattern}" search_in="msg" check_it="true" assign_to="1"/>'


def do(action: str) -> str:
    return f"  <nop><action>{action}</action></nop>\n"


def pause(seconds: float) -> str:
    return f'  <pause milliseconds="{round(seconds * 1000)}"/>\n'


TRYING = '  <recv response="100" optional="true"/>\n  <recv response="180" optional="true"/>\n'
ANSWERED = TRYING + recv(200, options='rrs="true"')
ACK = within("ACK", 1)
BYE = within("BYE", 9) + recv(200)
REFUSED_ACK = hop("ACK", to="[peer_tag_param]")
THEIR_BYE = '  <recv request="BYE" timeout="30000"/>\n' + part("answer")
SPEAK = do('<exec rtp_stream="sound.ul,1,0"/>')


@dataclass
class Sipp:
    """One run. It succeeds only if every call went exactly by the scenario."""

    steps: list[str]
    folder: Path
    transport: str = "u1"
    calls: int = 1
    options: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rtp_port = free_port() & ~1

    def start(self, house: House) -> Sipp:
        unused = '  <Reference variables="1"/>\n' if 'assign_to="1"' in "".join(self.steps) else ""
        scenario = (
            f'<?xml version="1.0"?>\n<scenario name="test">\n{"".join(self.steps)}{unused}</scenario>\n'
        )
        (self.folder / "scenario.xml").write_text(scenario)
        command = [
            need_program("sipp", "sip-tester"), f"127.0.0.1:{house.sip_port}", "-sf", "scenario.xml",
            "-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", str(free_port()), "-mp", str(self.rtp_port),
            "-t", self.transport, "-m", str(self.calls), "-r", str(self.calls), "-l", str(self.calls),
            "-timeout", "40", "-timeout_error", "-trace_err", "-error_file", "errors",
            "-trace_logs", "-log_file", "said", "-cid_str", "%u-%p-sipp", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "out").open("wb"),
            stderr=subprocess.STDOUT,
        )
        return self

    def finish(self) -> list[str]:
        """What the scenario logged, a line each."""
        status = self.process.wait(60)
        told = [self.folder / name for name in ("errors", "out")]
        assert status == 0, "\n".join(
            path.read_text(errors="replace")[-3000:] for path in told if path.exists()
        )
        said = self.folder / "said"
        return [line for line in said.read_text().splitlines() if line] if said.exists() else []

    def run(self, house: House) -> list[str]:
        return self.start(house).finish()


# ── what was on the wire ─────────────────────────────────────────────────────────────────────────────────


@dataclass
class Packets:
    """RTP toward one port: arrival times (s) and payloads."""

    times: np.ndarray
    payloads: list[bytes]

    @property
    def sound(self) -> np.ndarray:
        """PCMU decoded, in [-1, 1]."""
        return LINEAR[np.frombuffer(b"".join(self.payloads), np.uint8)] / 32768


@contextmanager
def captured(folder: Path, port: int) -> Iterator[Callable[[], Packets]]:
    """Records UDP toward the port; what is yielded answers the RTP so far, once."""
    need_program("dumpcap", "wireshark-common")
    file = folder / "wire.pcapng"
    with (folder / "dumpcap").open("wb") as log:
        dumpcap = subprocess.Popen(
            ["dumpcap", "-q", "-i", "lo", "-f", f"udp dst port {port}", "-w", file], stdout=log, stderr=log
        )

    def read() -> Packets:
        dumpcap.send_signal(signal.SIGINT)
        dumpcap.wait(10)
        tshark = [
            need_program("tshark"),
            "-r",
            file,
            "-T",
            "fields",
            "-e",
            "frame.time_epoch",
            "-e",
            "udp.payload",
        ]
        rows = subprocess.run(tshark, check=True, capture_output=True, text=True).stdout.splitlines()
        packets = [(float(at), bytes.fromhex(payload)) for at, payload in map(str.split, rows)]
        audio = [(at, p[12:]) for at, p in packets if p[1] & 0x7F == 0]
        return Packets(np.array([at for at, _ in audio]), [payload for _, payload in audio])

    try:
        deadline = time.monotonic() + 10
        while b"File:" not in (folder / "dumpcap").read_bytes():
            assert time.monotonic() < deadline, (folder / "dumpcap").read_text()
            time.sleep(0.05)
        yield read
    finally:
        if dumpcap.poll() is None:
            dumpcap.terminate()
            dumpcap.wait(10)


def loud(sound: np.ndarray) -> np.ndarray:
    """Which 20 ms frames are louder than -46 dBFS."""
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    above: np.ndarray = np.sqrt((frames**2).mean(axis=1)) > 0.005
    return above


def speech_s(sound: np.ndarray) -> float:
    return float(np.sum(loud(sound)) * 0.02)


def last_said(sound: np.ndarray) -> np.ndarray:
    """What followed the last second of silence."""
    frames = np.flatnonzero(loud(sound))
    first = frames[np.flatnonzero(np.diff(frames, prepend=-100) > 50)[-1]]
    return sound[max(0, first - 5) * 160 : (frames[-1] + 5) * 160]


def recognised(sound: np.ndarray) -> str | None:
    """Which of some sentences it is, by a recogniser that is sure of it."""
    found = Recogniser().align(soxr.resample(sound, 8_000, RATE_HZ).astype(np.float32), SENTENCES)
    return found.phrase if found is not None and weigh(found).sure else None


# ── the gateway ──────────────────────────────────────────────────────────────────────────────────────────


def free_slots(house: House) -> int:
    found = re.search(r'voicegate_sip_now\{what="slots_free"\} (\d+)', house.get("/metrics"))
    return int(found[1]) if found else -1


def all_free(house: House, within_s: float = 5.0) -> float:
    return house.wait_for("eight free slots", lambda: free_slots(house) == 8, within_s)


def never_acknowledged(house: House) -> int:
    found = re.search(r'event="never_acknowledged"\} (\d+)', house.get("/metrics"))
    return int(found[1]) if found else 0


def events(house: House, kind: str) -> list[dict[str, Any]]:
    """Of the latest call."""
    last = max(house.calls(), key=lambda call: float(call["started_at"]))
    shown = house.get(f"/api/calls/{last['call_id']}")["events"]
    return [event for event in shown if event["kind"] == kind]


def how_they_ended(house: House, latest: int = 1) -> list[str]:
    """The latest calls, once they all have."""
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        found[:] = sorted(house.calls(), key=lambda call: float(call["started_at"]))[-latest:]
        return all("how" in call for call in found)

    house.wait_for("the end of the latest calls", ended)
    return [str(call["how"]) for call in found]


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
    assert np.max(np.diff(heard.times)) < 0.1, "no hole in what we send"
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
        within("INVITE", 20, sdp("18", version=2)) + TRYING + recv(488) + hop("ACK", 20, "[peer_tag_param]")
    )
    steps.append(
        within("INVITE", 21, sdp("9", version=2)) + TRYING + recv(488) + hop("ACK", 21, "[peer_tag_param]")
    )
    steps.append(within("INVITE", 22, sdp("8", version=2)) + TRYING + recv(200) + within("ACK", 22))
    wrong = within("BYE", 23).replace(";tag=[pid]S", ";tag=[pid]T") + recv(481)
    old = within("BYE", 9).replace('retrans="500"', "") + recv(500)
    Sipp([invite(), ANSWERED, ACK, *steps, wrong, old, within("BYE", 24) + recv(200)], tmp_path).run(house)
    assert how_they_ended(house) == ["caller hung up"]


@pytest.mark.long("the other side of a call that a third party makes picks up after 12 s")
def test_who_dials_for_somebody_else_acknowledges_late(house: House, tmp_path: Path) -> None:
    """RFC 3725 flow I: an INVITE without an offer, and its ACK has the answer once the other side has one."""
    steps = [invite(""), ANSWERED, pause(12), within("ACK", 1, sdp(port="[media_port]")), pause(2.5), BYE]
    with captured(tmp_path, (call := Sipp(steps, tmp_path)).rtp_port) as heard:
        call.run(house)
        assert speech_s(heard().sound) > 1
    assert how_they_ended(house) == ["caller hung up"]


@pytest.mark.long("an answer may stay unacknowledged for 32 s")
def test_who_never_acknowledges_keeps_no_slot(house: House, tmp_path: Path) -> None:
    all_free(house)
    before = never_acknowledged(house)
    bye = THEIR_BYE.replace("30000", "50000")
    silent = Sipp([invite(), ANSWERED, bye], tmp_path, calls=3, options=["-timeout", "60"]).start(house)
    house.wait_for("three held slots", lambda: free_slots(house) == 5)
    assert place_call(house.uri, duration_s=1).answered, "others are served"
    silent.finish()  # each was told by a BYE
    all_free(house, 9.0)
    assert never_acknowledged(house) == before + 3


def test_a_transfer_is_refused_and_the_call_goes_on(house: House, tmp_path: Path) -> None:
    refer = within("REFER", 2, extra="Refer-To: <sip:victim@127.0.0.1:9>")
    again = within("INVITE", 3, sdp(version=2)) + TRYING + recv(200) + within("ACK", 3)
    Sipp([invite(), ANSWERED, ACK, refer, recv(403), again, BYE], tmp_path).run(house)


@pytest.mark.parametrize("transport", ["u1", "t1"])
def test_a_long_invite_harms_nobody(house: House, tmp_path: Path, transport: str) -> None:
    padded = invite(extra="X-Padding: " + "p" * 6000)
    Sipp([padded, ANSWERED, ACK, pause(0.5), BYE], tmp_path, transport).run(house)
    talkative = invite(sdp() + "".join(f"\n      a=padding:{n}-{'p' * 90}" for n in range(150)))
    Sipp([talkative, ANSWERED, ACK, pause(0.5), BYE], tmp_path, transport).run(house)
    vast = invite(sdp() + "".join(f"\n      a=padding:{n}-{'p' * 90}" for n in range(400)))
    Sipp([vast, TRYING, recv(513), REFUSED_ACK, pause(0.1)], tmp_path, transport).run(house)
    assert place_call(house.uri, duration_s=0.5).answered
    assert house.get("/readyz")["ready"]


def test_codecs_we_do_not_have_are_488(house: House, tmp_path: Path) -> None:
    Sipp([invite(sdp("18")), TRYING, recv(488), REFUSED_ACK, pause(0.1)], tmp_path).run(house)


def test_options_and_unknown_requests_are_answered(house: House, tmp_path: Path) -> None:
    options = part("hop", method="OPTIONS", cseq=1, to="").replace("<send>", '<send retrans="500">')
    register = part("hop", method="REGISTER", cseq=2, to="").replace("<send>", '<send retrans="500">')
    Sipp([options, recv(200, has("INVITE")), register, recv(405)], tmp_path).run(house)


def test_twenty_calls_too_many_are_told_when_to_try_again(house: House, tmp_path: Path) -> None:
    all_free(house)
    busy = recv(503, has("Retry-After: [0-9]+"), options='optional="true" next="busy"')
    steps = [
        *(invite(), '  <recv response="100" optional="true"/>\n', busy, recv(200, options='rrs="true"')),
        *(ACK, do('<log message="answered"/>'), pause(5), BYE),
        *('  <nop next="end"/>\n', '  <label id="busy"/>\n', REFUSED_ACK, do('<log message="busy"/>')),
        *('  <label id="end"/>\n', pause(0.1)),
    ]
    said = Sipp(steps, tmp_path, calls=28).run(house)
    assert (said.count("answered"), said.count("busy")) == (8, 20)
    all_free(house)


def with_user(house: House, folder: Path) -> None:
    (folder / "password").write_text("correct-horse\n")
    add = [sys.executable, "-m", "gateway.cli", "sip", "user", "add", "alice", "--password-from"]
    subprocess.run([*add, folder / "password"], check=True, env=house.environ)


def test_a_gateway_with_users_takes_nobody_else(own_house: Callable[..., House], tmp_path: Path) -> None:
    house = own_house(sip_auth="on")
    with_user(house, tmp_path)
    ack = part("hop", method="ACK", cseq=1, to="[peer_tag_param]")
    challenged = [invite(), TRYING, recv(401, options='auth="true"'), ack]
    again = invite(extra="[authentication username=alice password=$]", cseq=2)
    right = again.replace("=$]", "=correct-horse]")
    wrong = again.replace("=$]", "=battery-staple]")
    Sipp([*challenged, right, ANSWERED, within("ACK", 2), pause(1), BYE], tmp_path).run(house)
    Sipp([*challenged, wrong, TRYING, recv(401), hop("ACK", 2, "[peer_tag_param]")], tmp_path).run(house)
    assert len(house.calls()) == 1
    allowed = place_call(house.uri, user="alice", password="correct-horse", duration_s=1)
    refused = place_call(house.uri, user="alice", password="battery-staple", duration_s=1)
    assert allowed.answered
    assert not refused.answered
    assert "401" in refused.ended


def test_a_gateway_may_ask_for_sha_256(own_house: Callable[..., House], tmp_path: Path) -> None:
    house = own_house(sip_auth="on", sip_digest="sha-256", wide_lines=0, web_lines=0)
    with_user(house, tmp_path)
    assert place_call(house.uri, user="alice", password="correct-horse", duration_s=0.5).answered
    assert "401" in place_call(house.uri, user="alice", password="battery-staple").ended


def test_a_new_front_still_ends_the_calls_of_the_old_one(
    own_house: Callable[..., House], tmp_path: Path
) -> None:
    house = own_house(wide_lines=0, web_lines=0)
    call = Sipp([invite(), ANSWERED, ACK, THEIR_BYE], tmp_path).start(house)
    house.wait_for("the call", lambda: any(one["state"] == "confirmed" for one in house.calls()))
    house.kill("front")
    house.wait_for("a new front", house.ready, 15)
    path = f"{house.url}/api/calls/{house.calls()[0]['call_id']}"
    with urllib.request.urlopen(urllib.request.Request(path, method="DELETE"), timeout=5) as answer:
        assert answer.status < 300
    call.finish()  # its BYE came, from an edge that never saw its INVITE
    house.wait_for("its slot", lambda: free_slots(house) == 4)
