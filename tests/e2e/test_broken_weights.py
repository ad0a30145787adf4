"""A house whose ears have a wrong file and a cut one: each is named with its remedy, and calls go on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from consent.models.model_files import locked_model
from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House
from tests.needs import HANGS_S, need_model, need_sounds

pytestmark = pytest.mark.e2e

PLANS = """
[[route]]
name = "demo"
called = ["demo"]
keep = { transcript = true }
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en", text = "What you say is written down." },
  { verb = "converse", instructions = "x", greeting = "Hello.", languages = { es = "message" }, answers = [
    { intent = "hours", ask = ["what are your opening hours"], say = "We are open from nine to five." },
  ] },
]

[[route]]
name = "message"
do = [{ verb = "answer" }, { verb = "record", announce = "Please leave a message.", max_s = 2.0 }]
"""


def broken(folder: Path) -> Path:
    """Model files as on this machine, but for one with another hash and one that is cut."""
    folder.mkdir()
    for name in ("whisper-tiny-en", "whisper-base"):
        for path in locked_model(name).paths(need_model(name)):
            (folder / path.name).symlink_to(path)
    wrong, cut = folder / "whisper-tiny-en.txt", folder / "whisper-base.bin"
    text, start = wrong.read_bytes(), cut.read_bytes()[:1_000_000]
    wrong.unlink()
    wrong.write_bytes(text[:-2] + b"?\n")
    cut.unlink()
    cut.write_bytes(start)
    return folder


@pytest.mark.long("a house, and a call in real time")
def test_a_wrong_hash_and_a_cut_file_are_named_and_a_call_goes_on(
    tmp_path: Path, say: Callable[[str], Path]
) -> None:
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "a.toml").write_text(PLANS)
    house = House(
        tmp_path,
        dialplans=plans,
        models=broken(tmp_path / "models"),
        web_lines=0,
        wide_calls=0,
        log_level="debug",
    )
    stranger = need_sounds("ru_RU_f_IvrvoiceRU") / "vm-opts.wav"
    house.start()
    try:
        report = place_call(house.uri, script=[stranger, say("What are your opening hours?")])
        assert report.answered, report.ended
        house.wait_for("its end", lambda: house.events("call.ended"), HANGS_S)
        (call,) = house.calls()
        events = house.get(f"/api/calls/{call['call_id']}")["events"]
    finally:
        house.stop()
    assert [event["data"]["heard"] for event in events if event["kind"] == "language"] == [""]
    assert call["route"] == "demo"
    turns = [event["data"] for event in events if event["kind"] == "turn"]
    assert "We are open from nine to five." in [turn.get("text") for turn in turns], "phrases are heard still"
    named = re.compile(r"[^/ ]+(?= is not the file)")
    found = {event["error"]: event for event in house.events("ears.weights_refused")}
    refused = {named.findall(error)[0]: event for error, event in found.items()}
    assert {name: event["remedy"] for name, event in refused.items()} == {
        "whisper-tiny-en.txt": "voicegate models get whisper-tiny-en",
        "whisper-base.bin": "voicegate models get whisper-base",
    }
    assert "another SHA-256" in refused["whisper-tiny-en.txt"]["error"]
    assert "1000000 bytes, not " in refused["whisper-base.bin"]["error"]
    assert "Traceback" not in house.log_path.read_text()
