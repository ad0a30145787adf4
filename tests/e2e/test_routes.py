"""A call that goes on as another route: each is spoken in its own voice, under a grant of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consent.grants.scope import STOCK
from consent.office.office import ConsentOffice
from consent.proof.evidence import page
from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.testphone import place_call
from gateway.cli.calls.call_stores import CallStores
from gateway.config.settings import Settings
from gateway.store.call_leaves import sealed_calls
from tests.consent.proof.gathered import evidence_by
from tests.e2e.gateway_process import House
from tests.e2e.house_office import Office, house_with_office, running
from tests.needs import goldens
from watermark.keys import KeyRing

pytestmark = pytest.mark.e2e

PLANS = """
[[route]]
name = "jane"
called = ["jane"]
voice = "jane"
purpose = "support"
without_voice = "hangup"
do = [
  { verb = "answer" }, { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "gather", prompt = "Press one.", branches = { "1" = "ads" }, else = "ads" },
]

[[route]]
name = "ads"
voice = "heart"
purpose = "marketing"
language = "de"
do = [
  { verb = "answer" }, { verb = "disclose", principal = "Acme", language = "de" },
  { verb = "say", text = "Kaufen Sie jetzt, und nur heute." },
  { verb = "gather", prompt = "Press two.", branches = { "2" = "jane" } },
]

[[route]]
name = "forbidden"
called = ["forbidden"]
do = [
  { verb = "answer" }, { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "gather", prompt = "Press one.", branches = { "1" = "janes-ads" } },
]

[[route]]
name = "janes-ads"
voice = "jane"
purpose = "marketing"
without_voice = "hangup"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "say", text = "This is not what I consented to." },
]
"""


@dataclass
class Site:
    house: House
    office: Office
    folder: Path

    def call(self, route: str, script: list[Any], duration_s: float = 60) -> CallReport:
        uri = self.house.uri.replace("demo", route)
        return place_call(uri, record=self.folder / "heard.wav", script=script, duration_s=duration_s)

    def table(self) -> dict[str, Any]:
        """The newest call as `voicegate calls show --json` has it in `registry`."""
        call_id = max(self.house.calls(), key=lambda call: float(call["started_at"]))["call_id"]
        with CallStores(Settings(data_dir=self.house.folder / "data")) as stores:
            table = stores.table(call_id)
        assert table is not None
        return table


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("routes")
    house, office = house_with_office(
        folder, PLANS, engine="chroma", chroma=goldens() / "chroma-a", chroma_reply_s=2.0, engine_calls=4
    )
    office.register_jane()
    with running(house, office):
        yield Site(house, office, folder)


@pytest.mark.long("two routes of a call in real time, on an engine that is not fast")
def test_each_route_of_a_call_is_spoken_by_its_own_grant(site: Site) -> None:
    """What the review found: all of it was said in jane's voice, and booked as her support."""
    report = site.call("jane", ["1"])
    assert report.answered, report.ended
    data, table = site.house.folder / "data", site.table()
    office = ConsentOffice.open(f"sqlite:///{data / 'voicegate.db'}", data / "consent")  # with the clip
    first, second = table["grants"]
    assert (first["route"], first["voice"], first["purpose"], first["language"]) == (
        "jane", "jane", "support", "en",
    )  # fmt: skip
    assert (second["route"], second["voice"], second["purpose"], second["language"]) == (
        "ads", STOCK, "marketing", "de",
    )  # fmt: skip
    assert first["jti"] != second["jti"]
    assert second["voice_hash"] == office.stock.voice.voice_hash
    spoke = [event for event in site.house.events("session.started") if event["call_id"] == table["call_id"]]
    assert [event["voice"] for event in spoke] == ["jane", STOCK], "the engine opened a session for each"

    granted = [row for row in office.books.reader.rows(kinds=("voice.granted",), holding=table["call_id"])]
    assert [row.table["dialplan"] for row in granted] == ["jane"], "nothing of the ads is jane's"
    (used,) = office.books.reader.rows(kinds=("voice.used",), holding=table["call_id"])
    assert (used.table["jti"], used.table["dialplan"]) == (first["jti"], "jane")
    assert used.table["seconds"] == pytest.approx(first["spoken_s"], abs=0.01)
    assert 1.0 < used.table["seconds"] < 12.0
    assert second["spoken_s"] > 1.0, "and the ads were heard"

    keys = KeyRing.load(data / "watermark-keys.json").keys
    with sealed_calls(f"sqlite:///{data / 'voicegate.db'}") as calls:
        evidence = evidence_by(office, table, keys=keys, calls=calls)
    assert evidence.unbroken, evidence.to_json()
    html = page(evidence)
    for said in ("marketing", "ads", "support", first["jti"], second["jti"]):
        assert said in html
    office.close()


@pytest.mark.prove
@pytest.mark.long("two calls in real time, on an engine that is not fast")
def test_the_way_back_and_what_is_not_allowed(site: Site) -> None:
    site.call("jane", ["1", "2", "1"])
    table, office = site.table(), site.office.office
    assert [grant["route"] for grant in table["grants"]][:3] == ["jane", "ads", "jane"]
    persons = {grant["jti"] for grant in table["grants"] if grant["voice"] == "jane"}
    assert len(persons) >= 2, "back in her route, another grant"
    used = [
        row.table["jti"] for row in office.books.reader.rows(kinds=("voice.used",), holding=table["call_id"])
    ]
    assert sorted(used) == sorted(persons), "each once"

    site.call("forbidden", ["1"])
    (call,) = [call for call in site.house.calls() if call["how"].endswith("purpose")]
    assert call["how"] == "failed: the voice may not be used: purpose"


@pytest.mark.prove
@pytest.mark.long("a call in real time, on an engine that is not fast")
def test_what_was_spoken_is_booked_though_the_front_and_the_hall_die(site: Site) -> None:
    house, office = site.house, site.office.office
    before = len(office.books.reader.rows(kinds=("voice.used",)))
    calling = threading.Thread(target=lambda: site.call("jane", [], duration_s=40))
    calling.start()
    house.wait_for("the call", lambda: any(call["state"] == "confirmed" for call in house.calls()), 20)
    time.sleep(3)
    (call,) = [call for call in house.calls() if call["state"] == "confirmed"]
    house.kill("front")
    house.kill("hall0")
    calling.join(60)
    house.wait_for("the house", house.ready, 30)
    house.wait_for("the booking", lambda: len(office.books.reader.rows(kinds=("voice.used",))) > before, 45)
    granted = office.books.reader.rows(kinds=("voice.granted",), holding=call["call_id"])
    used = office.books.reader.rows(kinds=("voice.used",), holding=call["call_id"])
    assert sorted(row.table["jti"] for row in used) == sorted(row.table["jti"] for row in granted)
