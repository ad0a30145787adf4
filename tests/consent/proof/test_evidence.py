"""From sound to consent on one page, and one voice's proof in one file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from consent.archive.keys import SigningKey
from consent.errors import ConsentError, LedgerError, VaultError
from consent.grants.grant import VoiceGrant, read_public_keys
from consent.grants.scope import Scope
from consent.ledger.call_leaf import CallLeaf, call_leaf
from consent.office.office import ConsentOffice
from consent.office.record import Reference
from consent.office.withdrawal import Withdrawals
from consent.proof import bundle
from consent.proof.evidence import PAYLOAD_MASK, Evidence, page
from tests.consent.conftest import Clock, Desk, prompt
from tests.consent.proof.gathered import evidence_by
from watermark.keys import MarkKey
from watermark.payload import call_payload

KEY = MarkKey("wm-beef", 0xBEEF, bytes(32))
PAYLOAD = call_payload(KEY, "c1") & PAYLOAD_MASK


@dataclass
class SealedAs:
    """A registry whose calls are sealed by an office as they are given."""

    desk: Desk
    leaves: list[CallLeaf] = field(default_factory=list)
    rows: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        call_id = str(row["call_id"])
        self.rows[call_id] = row
        leaf = CallLeaf(call_id, "entered", call_leaf(row, "entered"), f"b{len(self.leaves)}")
        self.desk.office.seal_calls(str(leaf.batch), [leaf.leaf])
        self.leaves.append(leaf)

    def by_batch(self) -> Iterator[CallLeaf]:
        return iter(self.leaves)

    def of_call(self, call_id: str) -> list[CallLeaf]:
        return [leaf for leaf in self.leaves if leaf.call_id == call_id]

    def call(self, call_id: str) -> Mapping[str, Any] | None:
        return self.rows.get(call_id)

    def with_calls(self) -> Iterator[tuple[CallLeaf, Mapping[str, Any] | None]]:
        return iter([(leaf, self.rows.get(leaf.call_id)) for leaf in self.leaves])

    def without_leaf(self) -> Iterator[Mapping[str, Any]]:
        return iter([])


def gather(
    office: ConsentOffice, row: Mapping[str, Any] | None, mark: Mapping[str, Any] | None = None
) -> Evidence:
    """The chain for a row as the registry entered and sealed it."""
    sealed = SealedAs(Desk(office, Clock(), {}, lambda: office))
    if row is not None:
        with contextlib.suppress(LedgerError):  # one that was edited takes no seal
            sealed.add(row)
    return evidence_by(office, row, mark, keys=[KEY], calls=sealed)


def call(granted: VoiceGrant, **given: object) -> dict[str, object]:
    """A row of the gateway's registry."""
    payload = call_payload(KEY, str(given.get("call_id", granted.call_id))) & PAYLOAD_MASK
    return {
        "call_id": granted.call_id, "payload": payload, "grant_jti": granted.jti, "voice": granted.voice,
        "voice_hash": granted.voice_hash, "dialplan": "demo.toml:3", "route": "demo", "caller": "<script>",
        "called": "sip:demo@x", "started_at": 1_800_000_000.0, "ended_at": None, "how": None, **given,
    }  # fmt: skip


def granted(desk: Desk) -> VoiceGrant:
    found = desk.grant()
    assert isinstance(found, VoiceGrant)
    return found


def holds(evidence: Evidence) -> Mapping[str, bool | None]:
    return {link.title: link.holds for link in evidence.links}


def test_the_chain_of_a_marked_clip_is_unbroken(needs_review: Desk) -> None:
    desk = needs_review
    desk.jane()
    evidence = gather(desk.office, call(granted(desk)), {"payload": f"{PAYLOAD:x}", "p_value": 1e-9})
    assert evidence.unbroken
    assert list(holds(evidence)) == ["Watermark", "Call", "Registry", "Grant", "Consent", "Ledger"]
    facts = evidence.links[4].facts
    assert facts["person"] == "Jane Doe"
    assert "bob" in json.dumps(facts)
    json.dumps(evidence.to_json())


def test_the_page_is_whole_prints_and_runs_nothing(desk: Desk) -> None:
    desk.jane()
    html = page(gather(desk.office, call(granted(desk))))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "Jane Doe" in html
    assert "http" not in html
    HTMLParser().feed(html)


def test_a_chain_with_a_missing_link_says_which(desk: Desk) -> None:
    desk.jane()
    one = granted(desk)
    assert holds(gather(desk.office, None, {"payload": "1"})) == {"Watermark": True, "Call": False}
    assert holds(gather(desk.office, call(one, grant_jti="f" * 32)))["Grant"] is False
    assert holds(gather(desk.office, call(one, call_id="another")))["Grant"] is False
    assert not gather(desk.office, call(one, call_id="another")).unbroken


def test_after_an_erasure_the_chain_still_names_the_record_by_its_hash(desk: Desk) -> None:
    done = desk.jane()
    one = granted(desk)
    act = desk.act("alice", "erase", voice_id=done.voice_id)
    Withdrawals(desk.office.books, desk.office.vault).erase("jane", "asked", act)
    evidence = gather(desk.office, call(one))
    assert evidence.unbroken
    assert "cannot be opened any more" in evidence.links[3].says
    assert "Jane Doe" not in page(evidence)


def test_a_clip_of_the_stock_voice_needs_no_person(desk: Desk) -> None:
    stock = desk.office.grant(Scope("heart", "p", "d", "en", "c"))
    evidence = gather(desk.office, call(stock))
    assert evidence.unbroken
    assert "no living person" in evidence.links[-1].says
    assert not gather(desk.office, call(stock, voice_hash="0" * 64)).unbroken


def test_each_route_of_a_call_is_on_the_page(desk: Desk) -> None:
    desk.jane()
    one, two = granted(desk), desk.office.grant(Scope("heart", "marketing", "ads", "de", "c1"))
    grants = [
        {"jti": one.jti, "route": "demo", "voice": "jane", "voice_hash": one.voice_hash, "given_at": 1.0},
        {
            "jti": two.jti, "route": "ads", "voice": "heart", "voice_hash": two.voice_hash, "given_at": 2.0,
            "purpose": "marketing", "language": "de", "spoken_s": 3.25,
        },
    ]  # fmt: skip
    evidence = gather(desk.office, call(one, grants=grants))
    assert evidence.unbroken
    assert [link.title for link in evidence.links] == [
        "Call",
        "Registry",
        "Grant",
        "Consent",
        "Voice",
        "Ledger",
    ]
    assert evidence.links[4].facts["route"] == "ads"
    assert evidence.links[4].facts["spoken"] == "3.2 s"
    html = page(evidence)
    assert "marketing" in html
    assert "support" in html


@pytest.mark.parametrize("lie", ["route", "hidden", "made up", "stock"])
def test_a_registry_that_tells_of_other_routes_breaks_the_chain(desk: Desk, lie: str) -> None:
    desk.jane()
    one, two = granted(desk), desk.grant(purpose="booking", dialplan="booking")
    assert isinstance(two, VoiceGrant)
    named = [(one.jti, "demo"), (two.jti, "booking")]
    assert gather(desk.office, call(one, grants=table_of(one, named))).unbroken
    told = {
        "route": [(one.jti, "demo"), (two.jti, "demo")],
        "hidden": [(one.jti, "demo")],
        "made up": [*named, ("f" * 32, "demo")],
        "stock": named,
    }[lie]
    grants = table_of(one, told)
    if lie == "stock":
        grants[1] |= {"voice": "heart", "voice_hash": desk.office.stock.voice.voice_hash}
    evidence = gather(desk.office, call(one, grants=grants))
    assert not evidence.unbroken
    assert any(link.title == "Grant" and link.holds is False for link in evidence.links)


def table_of(jane: VoiceGrant, named: list[tuple[str, str]]) -> list[dict[str, object]]:
    """What a registry tells of grants in jane's voice."""
    return [
        {"jti": jti, "route": route, "voice": "jane", "voice_hash": jane.voice_hash} for jti, route in named
    ]


def test_an_edited_ledger_breaks_the_chain(desk: Desk) -> None:
    desk.jane()
    one = granted(desk)
    with desk.office.archive.writing() as connection:
        connection.execute(text("UPDATE consent_ledger SET body = '{}' WHERE seq = 3"))
    assert holds(gather(desk.office, call(one)))["Ledger"] is False


# ── bundles ──────────────────────────────────────────────────────────────────────────────────────────────


def exported(desk: Desk, *, with_sound: bool = False, handle: str = "jane") -> dict[str, object]:
    standing = desk.office.standing_of(handle)
    assert standing is not None
    sounds = desk.listen("carol", handle) if with_sound else None
    made = bundle.export(desk.office, desk.office.standing_of(handle) or standing, sounds)
    return dict(json.loads(bundle.dump(made)))


def test_a_bundle_verifies_with_the_public_key_alone(needs_review: Desk) -> None:
    desk = needs_review
    desk.jane()
    keys = read_public_keys(desk.office.public_keys_path)
    found = bundle.verify(exported(desk, with_sound=True), keys)
    assert (found.state, found.reviews) == ("active", ("bob: approve",))
    assert found.record.claims["name"] == "Jane Doe"


def test_a_record_of_an_older_statement_still_verifies(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consent.statements.statement.VERSION", "2026-11")
    desk.jane()
    monkeypatch.undo()
    found = bundle.verify(exported(desk), read_public_keys(desk.office.public_keys_path))
    assert found.record.claims["statement"]["version"] == "2026-11/en"
    desk.grant()


def test_a_described_use_is_in_the_record_and_on_the_page(desk: Desk) -> None:
    terms = replace(Desk.TERMS, uses=(("support", "answering questions about orders"),))
    desk.jane(submission=desk.submission(desk.challenge(terms)))
    evidence = gather(desk.office, call(granted(desk)))
    assert evidence.links[3].facts["purposes"] == "support (answering questions about orders), booking"
    assert "for answering questions about orders and booking" in evidence.links[3].facts["statement"]
    found = bundle.verify(exported(desk), read_public_keys(desk.office.public_keys_path))
    assert found.record.purposes == {"support", "booking"}, "grants go by the word"


def test_a_bundle_from_which_the_revocation_was_left_out_is_refused(desk: Desk) -> None:
    done = desk.jane()
    act = desk.act("bob", "revoke", voice_id=done.voice_id)
    Withdrawals(desk.office.books, desk.office.vault).revoke("jane", "asked", act)
    made = exported(desk)
    made["rows"] = [row for row in made["rows"] if row["kind"] != "voice.revoked"]  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match="rows are missing"):
        bundle.verify(made, desk.office.keys.public)


def test_a_review_of_another_voice_proves_nothing(needs_review: Desk) -> None:
    """Joe was approved, Jane was not: Joe's rows in Jane's bundle."""
    desk = needs_review
    desk.submit()
    jane = exported(desk)
    desk.submit(
        handle="joe", statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "t"),)
    )
    desk.review(handle="joe")
    joe = exported(desk, handle="joe")
    jane["rows"] = sorted(
        {row["seq"]: row for row in [*jane["rows"], *joe["rows"]]}.values(),  # type: ignore[misc]
        key=lambda row: row["seq"],
    )
    with pytest.raises(LedgerError, match="another voice"):
        bundle.verify(jane, desk.office.keys.public)


def test_a_bundle_of_a_revoked_voice_says_so(desk: Desk) -> None:
    done = desk.jane()
    act = desk.act("bob", "revoke", voice_id=done.voice_id)
    Withdrawals(desk.office.books, desk.office.vault).revoke("jane", "asked", act)
    assert bundle.verify(exported(desk), desk.office.keys.public).state == "revoked"


def test_a_bundle_survives_a_rotation_with_the_old_key_alone(desk: Desk) -> None:
    old = dict(desk.office.keys.public)
    desk.rotate("signing")
    desk.jane()
    assert bundle.verify(exported(desk), old).state == "active"


def test_a_bundle_by_another_office_is_refused(desk: Desk) -> None:
    desk.jane()
    other = SigningKey.make()
    with pytest.raises(ConsentError):
        bundle.verify(exported(desk), {other.kid: other.private.public_key()})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_bundle_with_anything_changed_is_refused(needs_review: Desk, data: st.DataObject) -> None:
    desk = needs_review
    if desk.office.standing_of("jane") is None:
        desk.jane()
    made = exported(desk)
    rows = made["rows"]
    assert isinstance(rows, list)
    how = data.draw(st.sampled_from(["record", "row", "drop the voice's row", "swap", "status"]))
    if how == "record":
        token = str(made["record"])
        at = data.draw(st.integers(0, len(token) - 2))
        made["record"] = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
    elif how == "row":
        row = data.draw(st.sampled_from(rows))
        field = data.draw(st.sampled_from(["at_ms", "body", "kind", "subject", "prev", "signature"]))
        row[field] = row[field] + 1 if field == "at_ms" else "x" + str(row[field])
    elif how == "status":
        made["status"] = made["head"]
    elif how == "swap":
        rows[0], rows[-1] = rows[-1], rows[0]
    else:
        made["rows"] = [row for row in rows if row["kind"] != "voice.submitted"]
    with pytest.raises((LedgerError, VaultError)):
        bundle.verify(made, desk.office.keys.public)


def test_a_bundle_with_other_sound_is_refused(desk: Desk) -> None:
    desk.jane()
    made = exported(desk, with_sound=True)
    made["statement"] = made["reference"]
    with pytest.raises(VaultError, match="statement in the bundle"):
        bundle.verify(made, desk.office.keys.public)


@pytest.mark.parametrize("junk", [{}, {"format": "x"}, {"format": bundle.FORMAT, "rows": [{}], "record": ""}])
def test_what_is_no_bundle_is_refused(junk: dict[str, object]) -> None:
    with pytest.raises(LedgerError):
        bundle.verify(junk, {})
