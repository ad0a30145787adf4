"""A stranger tries to end, take over or answer somebody else's call, and to exhaust the gateway."""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.call_request import CallRequest
from gateway.cli.caller.testphone import place_call, place_calls
from tests.e2e.gateway_process import House
from tests.needs import HANGS_S, need_program

pytestmark = pytest.mark.e2e

WATCH_S = 7.0


@dataclass
class Watched:
    """A call as somebody on the wire sees it, all but the signed word in its routes."""

    call_id: str
    caller: tuple[str, str]
    """From of the INVITE, and the tag in it"""
    line_tag: str
    caller_port: int
    line_port: int
    line_branch: str
    """of the INVITE between edge and line, which nobody outside could see"""


def fields(rows: str) -> list[list[str]]:
    return [row.split("\t") for row in rows.splitlines()]


@pytest.fixture
def victim(house: House) -> Iterator[tuple[Watched, list[CallReport]]]:
    """A call that would last `WATCH_S`, seen by tshark, and what became of it."""
    call_id = secrets.token_hex(8)
    request = CallRequest(house.uri, duration_s=WATCH_S, sip_call_id=call_id)
    names = (
        "sip.Method",
        "sip.Status-Code",
        "sip.from.tag",
        "sip.to.tag",
        "udp.srcport",
        "udp.dstport",
        "sip.Via.branch",
    )
    columns = [part for name in names for part in ("-e", name)]
    # the house's lines have ports of their own: everything with this Call-ID is SIP, wherever it goes
    tshark = subprocess.Popen(
        [need_program("tshark"), "-i", "lo", "-l", "-f", "udp", "--enable-heuristic", "sip_udp",
         "-Y", f'sip.Call-ID == "{call_id}"', "-T", "fields", *columns],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tshark.stderr is not None
    assert tshark.stdout is not None
    while "Capturing on" not in (line := tshark.stderr.readline()):
        assert line, "tshark did not start"
    time.sleep(1.0)  # it says so before it does
    reports: list[CallReport] = []
    calling = threading.Thread(target=lambda: reports.extend(place_calls([request])))
    calling.start()
    seen: list[list[str]] = []
    while not any(row[1] == "200" and row[5] not in ("", str(house.sip_port)) for row in seen[2:]):
        seen.append(tshark.stdout.readline().rstrip("\n").split("\t"))
        assert len(seen) < 40, seen
    tshark.terminate()
    tshark.wait()
    invite = next(row for row in seen if row[0] == "INVITE" and row[5] == str(house.sip_port))
    inner = next(row for row in seen if row[0] == "INVITE" and row[5] != str(house.sip_port))
    answer = next(row for row in seen if row[1] == "200")
    yield (
        Watched(
            call_id,
            ("<sip:voicegate@127.0.0.1>", invite[2]),
            answer[3],
            int(invite[4]),
            int(inner[5]),
            inner[6],
        ),
        reports,
    )
    calling.join(30)


def sip(start: str, watched: Watched, cseq: str, *extra: str, via: str = "", forward: bool = True) -> bytes:
    caller = f"{watched.caller[0]};tag={watched.caller[1]}"
    line = f"<sip:demo@127.0.0.1>;tag={watched.line_tag}"
    ends = (caller, line) if forward else (line, caller)
    lines = [
        start,
        via or f"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{secrets.token_hex(6)};rport",
        "Max-Forwards: 70",
        f"From: {ends[0]}",
        f"To: {ends[1]}",
        f"Call-ID: {watched.call_id}",
        f"CSeq: {cseq}",
        "Contact: <sip:villain@127.0.0.1:9>",
        *extra,
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def statuses(sock: socket.socket, within_s: float = 1.0) -> list[int]:
    """Of the responses that come back."""
    found = []
    sock.settimeout(within_s)
    try:
        while True:
            match = re.match(rb"SIP/2.0 (\d+)", sock.recv(65535))
            found.append(int(match[1]) if match else 0)
    except TimeoutError:
        return found


def test_nobody_else_can_end_or_move_a_call(house: House, victim: tuple[Watched, list[CallReport]]) -> None:
    watched, reports = victim
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as villain:
        villain.bind(("127.0.0.1", 0))
        edge = ("127.0.0.1", house.sip_port)
        for method in ("BYE", "INVITE", "UPDATE", "REFER", "INFO"):
            uri = f"sip:demo@127.0.0.1:{house.sip_port};vg={'A' * 90}"
            route = f"Route: <sip:127.0.0.1:{watched.line_port};lr>"
            villain.sendto(sip(f"{method} {uri} SIP/2.0", watched, f"9 {method}", route), edge)
            villain.sendto(sip(f"{method} {uri} SIP/2.0", watched, f"9 {method}", forward=False), edge)
        assert statuses(villain) == [481] * 10
        cancel = f"Via: SIP/2.0/UDP 127.0.0.1:{watched.caller_port};branch=z9hG4bKguessed;rport"
        villain.sendto(sip(f"CANCEL {house.uri} SIP/2.0", watched, "1 CANCEL", via=cancel), edge)
        assert statuses(villain) == [481]
        for branch in (watched.line_branch, "z9hG4bKguessed"):
            via = f"Via: SIP/2.0/UDP 127.0.0.1:{house.sip_port};branch={branch}"
            for status in ("200 OK", "486 Busy Here"):
                villain.sendto(sip(f"SIP/2.0 {status}", watched, "1 INVITE", via=via), edge)
        assert statuses(villain, 0.5) == []
    deadline = time.monotonic() + 20
    while not reports and time.monotonic() < deadline:
        time.sleep(0.1)
    assert reports[0].answered
    assert reports[0].ended == "we hung up", "it lasted as long as its caller wanted"
    assert reports[0].packets > 0.9 * WATCH_S * 50


def test_a_line_takes_no_call_that_is_not_the_edges(
    house: House, victim: tuple[Watched, list[CallReport]]
) -> None:
    watched, _ = victim
    before = house.pids()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as villain:
        villain.bind(("127.0.0.1", 0))
        port = villain.getsockname()[1]
        for forged in ((), ("X-VG-Call: 0123456789abcdef", "X-VG-Auth: " + "0" * 64)):
            via = f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{secrets.token_hex(6)};rport"
            text = sip(
                f"INVITE sip:127.0.0.1:{watched.line_port} SIP/2.0", watched, "1 INVITE", *forged, via=via
            )
            text = text.replace(watched.call_id.encode(), secrets.token_hex(8).encode())
            text = text.replace(b";tag=" + watched.line_tag.encode(), b"")
            villain.sendto(text, ("127.0.0.1", watched.line_port))
            assert 403 in statuses(villain, 0.5)
    assert house.pids() == before, "no line has died of it"


@pytest.mark.long("what it holds it may leave unacknowledged for 32 s")
def test_a_flood_from_one_address_does_not_keep_others_out(house: House) -> None:
    """5,000 INVITEs in some seconds from one address; a telephone on another one is answered meanwhile."""
    stop = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as villain:
            villain.bind(("127.0.0.66", 0))
            own = f"127.0.0.66:{villain.getsockname()[1]}"
            for number in range(5000):
                if stop.is_set():
                    break
                text = (
                    f"INVITE {house.uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKf{number}\r\n"
                    f"From: <sip:f@127.0.0.66>;tag={number}\r\nTo: <sip:demo@127.0.0.1>\r\n"
                    f"Call-ID: f{number}\r\nCSeq: 1 INVITE\r\nContact: <sip:f@{own}>\r\n"
                    "Content-Length: 0\r\n\r\n"
                )
                villain.sendto(text.encode(), ("127.0.0.1", house.sip_port))
                sent += 1
                time.sleep(0.001)

    quiet = place_call(house.uri, duration_s=1)
    assert quiet.answered_after_s is not None
    flooding = threading.Thread(target=flood)
    flooding.start()
    time.sleep(1.0)
    try:
        report = place_call(house.uri, duration_s=2)
        assert report.answered, report.ended
        assert report.answered_after_s is not None
        assert report.answered_after_s < max(2.0, 10 * quiet.answered_after_s), "as on this machine now"
    finally:
        stop.set()
        flooding.join()
    assert sent > 1000
    dropped = re.search(
        r'voicegate_sip_total\{detail="rate",event="dropped"\} ([\d.]+)', house.get("/metrics")
    )
    assert dropped is not None
    assert float(dropped[1]) > sent / 2
    # its calls, never acknowledged, are gone as fast as any
    house.wait_for("its slots", lambda: 'what="slots_free"} 8.0' in house.get("/metrics"), HANGS_S)
    assert house.ready()


def test_garbage_and_half_open_connections_leave_it_answering(house: House) -> None:
    junk = [
        b"\x00" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"INVITE\r\n\r\n",
        secrets.token_bytes(60_000),
        b"\r\n" * 500,
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for data in junk:
            udp.sendto(data, ("127.0.0.1", house.sip_port))
    open_ones = [socket.create_connection(("127.0.0.1", house.sip_port)) for _ in range(60)]
    try:
        for data, sock in zip(junk, open_ones, strict=False):
            sock.sendall(data)
        assert place_call(house.uri + ";transport=tcp", duration_s=0.5).answered
    finally:
        for sock in open_ones:
            sock.close()
    assert "Traceback" not in house.log()
