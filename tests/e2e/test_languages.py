"""A caller who speaks Spanish to a house that speaks English: heard by real ears, and led on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.caller.testphone import place_call
from gateway.cli.calls.call_stores import CallStores
from gateway.config.settings import Settings
from tests.e2e.gateway_process import House
from tests.needs import need_model, need_sounds

pytestmark = [pytest.mark.e2e, pytest.mark.prove]

PLANS = """
[[route]]
name = "demo"
called = ["demo"]
do = [
  { verb = "answer" }, { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "converse", instructions = "x", greeting = "Hello.", languages = { es = "message" } },
]

[[route]]
name = "message"
do = [
  { verb = "answer" },
  { verb = "record", announce = "Please leave a message for our Spanish colleagues.", max_s = 2.0 },
  { verb = "hangup" },
]
"""
SPEAKERS = {"es": "es_MX_f_Allison", "en": "en_US_f_Allison", "ru": "ru_RU_f_IvrvoiceRU"}


@pytest.mark.long("three calls in real time")
def test_each_caller_is_led_by_what_they_speak(tmp_path: Path) -> None:
    need_model("whisper-base")
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "a.toml").write_text(PLANS)
    house = House(tmp_path, dialplans=plans)
    found = {}
    house.start()
    try:
        for language, folder in SPEAKERS.items():
            question = need_sounds(folder) / "vm-opts.wav"
            report = place_call(
                house.uri, record=tmp_path / f"{language}.wav", script=[question], duration_s=25
            )
            assert report.answered, report.ended
            (call,) = [one for one in house.calls() if one["call_id"] not in found]
            with CallStores(Settings(data_dir=house.folder / "data")) as stores:
                record = stores.record(call["call_id"])
            assert record is not None
            found[call["call_id"]] = (language, record)
    finally:
        house.stop()
    led = {language: record["route"] for language, record in found.values()}
    heard = {
        language: [event["data"]["heard"] for event in record["events"] if event["kind"] == "language"]
        for language, record in found.values()
    }
    (stranger,) = heard.pop("ru")
    assert heard == {"es": ["es"], "en": ["en"]}
    assert stranger not in ("", *heard), "it need not be told which language that is"
    assert led == {"es": "message", "en": "demo", "ru": "demo"}
    assert not house.events("ears.no_weights")
