"""A phone calls a whole gateway that runs Chroma on the golden checkpoint.

The stock voice has no clip of its own, so the front of this test hands one out for it, as it does for a
registered voice: noise, nobody's voice.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.caller import place_call
from tests.e2e.house import House
from tests.needs import need_sounds

pytestmark = pytest.mark.e2e

CLIP_FOR_THE_STOCK_VOICE = """
import sys

if "gateway.front" in sys.orig_argv:
    import dataclasses

    import numpy as np

    from consent.office import ConsentOffice

    stock = ConsentOffice.reference

    def reference(self, token, voice_hash):
        pcm = (0.2 * np.random.default_rng(9).standard_normal(48_000)).astype(np.float32)
        return dataclasses.replace(stock(self, token, voice_hash), pcm=pcm, text="The words of the clip.")

    ConsentOffice.reference = reference
"""


def test_a_phone_talks_with_chroma(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLIP_FOR_THE_STOCK_VOICE)
    house = House(
        tmp_path / "house",
        engine="chroma",
        chroma=golden,
        chroma_reply_s=1.2,
        engine_calls=4,
    )
    house.folder.mkdir()
    house.environ["PYTHONPATH"] = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[3])))
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
