"""Runs of sipp: scenarios put together from parts, and what was on the wire meanwhile."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import soxr

from model.api import RATE_HZ
from model.ears.evidence import weigh
from model.ears.recogniser import Recogniser
from tests.e2e.gateway_process import House, free_port
from tests.gateway.line.rawphone import Coder
from tests.needs import need_program

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
