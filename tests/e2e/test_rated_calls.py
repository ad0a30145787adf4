"""A whole gateway, telephones behind lines that lose packets both ways, and what operators learn."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway_process import House
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

CLEAN, ROUGH = ("0", "0"), ("5", "10")
"""Percent that the caller's line loses: of what goes, and of what comes."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Its telephones are on an RTP line."""
    house = House(tmp_path, narrow_lines=0, wide_lines=0, web_lines=0)
    house.start()
    argv = [sys.executable, "-m", "gateway.rtp.rtp_line", "--name", "r0", "--kind", "narrow"]
    argv += ["--hall", "hall0", "--runtime", str(house._runtime), "--capacity", "8"]
    line = subprocess.Popen(argv, env=house.environ)
    house.wait_for("the line", lambda: slots(house), HANGS_S)
    yield house
    line.terminate()
    line.wait()
    house.stop()


def slots(house: House) -> float:
    found = re.search(r'voicegate_sip_now\{what="slots"\} (\S+)', house.get("/metrics"))
    return float(found[1]) if found else 0.0


def voicegate(house: House, *argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gateway.cli", *argv]
    return subprocess.Popen(command, env=house.environ, stdout=subprocess.PIPE, text=True)


def said_by(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=2 * HANGS_S)
    return said


@pytest.mark.long("two calls in real time, through at least two reports of RTCP")
def test_what_got_lost_each_way_and_the_score_are_shown_and_counted(house: House) -> None:
    calls = [
        voicegate(house, "call", house.uri, "--duration", "14", "--loss", gone, "--heard-loss", missed)
        for gone, missed in (CLEAN, ROUGH)
    ]
    for call in calls:
        said_by(call)
    ids = {call["call_id"] for call in house.calls()}
    assert len(ids) == 2
    house.wait_for("both calls' last word", lambda: all(is_rated(house, one) for one in ids), HANGS_S)
    shown = {said_by(voicegate(house, "calls", "show", one)) for one in ids}
    clean, rough = sorted(shown, key=lambda text: figures(text)[0])
    lost, mos, far_lost, far_mos = figures(rough)
    # a busy machine may make packets late besides, which makes it worse, never better
    assert lost >= 4
    assert far_lost >= 7
    assert mos < min(4.1, figures(clean)[1])
    assert far_mos < min(3.8, figures(clean)[3])
    assert "round trip" in rough
    assert re.search(r"\n  \S+  quality line=r0 .*mos=", rough), "it was said while the call went on"
    for way in ("from", "to"):
        for name in ("mos", "loss_ratio"):
            metric = f'voicegate_call_{name}_count{{way="{way}"}} 2.0'
            house.wait_for(metric, lambda metric=metric: metric in house.get("/metrics"), HANGS_S)


def is_rated(house: House, call_id: str) -> bool:
    """Whether its line's last word has come."""
    return any(event["kind"] == "line_quality" for event in house.get(f"/api/calls/{call_id}")["events"])


def figures(shown: str) -> tuple[float, float, float, float]:
    """What `calls show` prints: percent lost and MOS, from the caller and to the caller."""
    here = re.search(r"packets came, \d+ were lost \((\S+) %\).*MOS (\d\.\d)", shown)
    there = re.search(r"the caller missed \d+ of our \d+ packets \((\S+) %\).*MOS (\d\.\d)", shown)
    assert here is not None, shown
    assert there is not None, shown
    return float(here[1]), float(here[2]), float(there[1]), float(there[2])
