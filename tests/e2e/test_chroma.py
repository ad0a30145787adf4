"""A phone calls a whole gateway that runs Chroma on the golden checkpoint.

The stock voice's clip is the one that the gateway makes at its first start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House
from tests.needs import goldens, need_sounds

pytestmark = pytest.mark.e2e


@pytest.mark.long("a whole gateway loads Chroma, and a call is held in real time")
def test_a_phone_talks_with_chroma(tmp_path: Path) -> None:
    house = House(
        tmp_path / "house",
        engine="chroma",
        chroma=goldens() / "chroma-a",
        chroma_reply_s=1.2,
        engine_calls=4,
    )
    house.folder.mkdir()
    house.start()
    try:
        human = need_sounds() / "agent-newlocation.wav"
        report = place_call(house.uri, script=[human], at_s=5, duration_s=12)
        assert report.answered, report.ended
        assert report.first_audio_s is not None
        (call,) = house.calls()
        house.wait_for("the call's end", lambda: house.calls()[0]["state"] == "ended")
        turns = [
            e["data"] for e in house.get(f"/api/calls/{call['call_id']}")["events"] if e["kind"] == "turn"
        ]
        assert [turn["who"] for turn in turns[:2]] == ["caller", "bot"], house.log()
        assert turns[0]["duration_s"] > 2
        assert turns[1]["text"]
        assert float(house.calls()[0]["spoken_s"]) > 2, "the disclosure, the greeting and the answer"
        assert "bytes stand in for words" in house.log()
    finally:
        house.stop()
