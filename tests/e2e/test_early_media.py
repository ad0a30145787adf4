"""baresip hears a recording before its call is answered, with PRACK and without, and then the voice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.cli.caller.caller_sound import SPOKEN_HZ, spoken
from tests.e2e.gateway_process import House
from tests.e2e.test_baresip import dial, network, softphone
from tests.e2e.test_watermark import trace
from watermark import sound

__all__ = ["network"]

pytestmark = [pytest.mark.e2e, pytest.mark.prove]

PLAN = """
[[route]]
name = "early"
called = ["early"]
[[route.do]]
verb = "play"
file = "prompts/before.wav"
synthetic = false
text = "Please hold the line."
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
[[route.do]]
verb = "hangup"
"""


def test_a_softphone_hears_a_recording_before_the_answer(network: str, tmp_path: Path) -> None:
    house = House(tmp_path / "house", host="0.0.0.0", wide_calls=0, web_lines=0, sip_auth="off")
    house.folder.mkdir()
    house.plan(PLAN)
    (house.folder / "data" / "dialplans" / "prompts").mkdir()
    words = np.tile(spoken("please hold the line we are busy now"), 3)
    sound.write(house.folder / "data" / "dialplans" / "prompts" / "before.wav", words, SPOKEN_HZ)
    house.start()
    try:
        phone = softphone(tmp_path, password="none")
        log = dial(phone, f"sip:early@{network}:{house.sip_port}", 15, "-s")
        assert 0 < log.find("SIP/2.0 183") < log.find("Call established"), log
        assert "421" not in log
        house.wait_for("its end", lambda: len(house.events("call.ended")) == 1)
        words_s = len(words) / SPOKEN_HZ
        kept = next(phone.glob("*-dec.wav"))
        heard = sound.read(kept)
        loud = np.flatnonzero(np.abs(heard.channels[0]) > 0.02) / heard.rate_hz
        assert loud[0] < 1.0, "nobody waits for the answer to hear it"
        assert loud[-1] > words_s + 2, "the disclosure comes after it"
        early = tmp_path / "early.wav"
        sound.write(early, heard.channels[0, : round(words_s * heard.rate_hz)], heard.rate_hz)
        status, said = trace(house, early)
        assert status == 0, f"marked like all else: {said}"
    finally:
        house.stop()
