"""Evidence for one marked clip, on one page: the mark, the call it names, the grant, the consent record.

The call's facts come from the gateway's registry as a plain mapping (`call_id`, `payload`, `grant_jti`,
`voice`, `voice_hash`, `dialplan`, `route`, `caller`, `called`, `started_at`, `ended_at`, `how`; any may be
missing): consent knows no gateway. What each link rests on is said beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

from consent.errors import ConsentError
from consent.office.office import ConsentOffice
from consent.office.record import agreed
from consent.office.stock import STOCK, STOCK_RECORD, UNHEARD_HASH


@dataclass
class Link:
    """One step of the chain. `holds` None: it could not be established."""

    title: str
    holds: bool | None
    says: str
    facts: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the command line."""
        return {"title": self.title, "holds": self.holds, "says": self.says, "facts": self.facts}


@dataclass
class Evidence:
    """The chain, in order. `unbroken` when every link holds."""

    made_at: float
    links: list[Link]

    @property
    def unbroken(self) -> bool:
        """Whether every link holds."""
        return all(link.holds for link in self.links)

    def to_json(self) -> dict[str, Any]:
        """For the command line."""
        links = [link.to_json() for link in self.links]
        return {"made_at": self.made_at, "unbroken": self.unbroken, "links": links}


def gather(
    office: ConsentOffice, call: Mapping[str, Any] | None, mark: Mapping[str, Any] | None = None
) -> Evidence:
    """The chain for a call.

    `mark` is what the detector said (`payload`, `p_value`), None when the call was asked for by its id. Never
    raises for what is missing: a missing link is part of the answer.
    """
    links: list[Link] = []
    if mark is not None:
        facts = {key: str(value) for key, value in mark.items()}
        links.append(Link("Watermark", True, "The detector found this gateway's mark in the clip.", facts))
    if call is None:
        links.append(Link("Call", False, "No call of this gateway has this mark's payload."))
        return Evidence(office.clock(), links)
    links.append(_call(call))
    if call.get("voice") == STOCK:
        links += _stock(office, call)
    else:
        links += _person(office, call)
    return Evidence(office.clock(), links)


def _call(call: Mapping[str, Any]) -> Link:
    facts = {
        key: _when(call[key]) if key.endswith("_at") else str(call[key])
        for key in ("call_id", "started_at", "ended_at", "how", "dialplan", "route", "caller", "called")
        if call.get(key) is not None
    }
    if call.get("payload") is not None:
        facts["payload"] = f"{int(call['payload']):012x}"
    says = "The registry's row, entered before the call's first sound. The caller's name proves nothing."
    return Link("Call", True, says, facts)


def _stock(office: ConsentOffice, call: Mapping[str, Any]) -> list[Link]:
    voice = office.stock
    # the hash of the record alone is of a call before there was a clip
    same = call.get("voice_hash") in (voice.voice_hash, UNHEARD_HASH)
    facts = {"voice": STOCK, "grant": str(call.get("grant_jti")), "voice_hash": str(call.get("voice_hash"))}
    says = str(STOCK_RECORD["statement"])
    return [
        Link("Voice", same, says if same else "The call names another hash than the stock voice's.", facts)
    ]


def _person(office: ConsentOffice, call: Mapping[str, Any]) -> list[Link]:
    jti = call.get("grant_jti")
    try:
        standing = office.look()
        rows = office.books.rows(kinds=("voice.granted",), holding=str(jti))
    except ConsentError as error:
        return [Link("Grant", None, f"The ledger cannot be read: {error}")]
    row = next((row for row in reversed(rows) if row.table["jti"] == jti), None)
    if row is None:
        return [Link("Grant", False, f"The ledger has no grant {jti}.")]
    body = row.table
    stolen_ms = standing.stolen.get(row.kid)
    fits: bool | None = body["call"] == call.get("call_id") and body["voice_hash"] == call.get("voice_hash")
    facts = {
        "grant": str(jti),
        "ledger row": f"{row.seq}, {row.hash[:16]}",
        "given": _when(row.at_ms / 1000),
        "purpose": body["purpose"],
        "dialplan": body["dialplan"],
        "language": body["language"],
    }
    says = "Given for this call and this voice." if fits else "This grant is for another call or voice."
    if fits and stolen_ms is not None and row.at_ms >= stolen_ms:
        fits, says = None, f"The key that signed this row, {row.kid}, was stolen by then."
    links = [Link("Grant", fits, says, facts)]
    voice = standing.voices.get(row.subject or "")
    if voice is None:
        return [*links, Link("Consent", False, "The ledger does not know the voice of this grant.")]
    links.append(_consent(office, voice.voice_id, row.at_ms / 1000, body))
    proof = office.books.prove()
    says = f"{proof.rows} rows verify." if proof.ok else f"Row {proof.bad} is bad: {proof.fault}"
    links.append(Link("Ledger", proof.ok, says, {"head": proof.head.hash} if proof.head else {}))
    return links


def _consent(office: ConsentOffice, voice_id: str, at: float, grant: Mapping[str, Any]) -> Link:
    voice = office.look().voices[voice_id]
    facts = {"record": voice.record_hash, "voice is now": voice.state}
    try:
        record = office.record(voice)
    except ConsentError as error:
        says = f"The ledger names the record by its hash; it cannot be opened any more ({error})."
        held = grant["record_hash"] == voice.record_hash and 0 < voice.active_ms <= at * 1000
        return Link("Consent", held, says, facts)
    claims = record.claims
    reviewed = 0 < voice.active_ms <= at * 1000
    covered = (
        reviewed
        and grant["record_hash"] == voice.record_hash
        and record.not_before <= at < record.expires_at
        and grant["purpose"] in record.purposes
    )
    facts |= {
        "person": claims["name"],
        "company": claims["company"],
        "purposes": agreed(claims),
        "languages": ", ".join(claims["languages"]),
        "dialplans": ", ".join(claims["dialplans"]) or "all",
        "valid": f"{_when(record.not_before)} to {_when(record.expires_at)}",
        "statement": claims["statement"]["text"],
        "statement's sound": claims["statement"]["recording"]["sound_sha256"],
        "registered by": claims["registrar"],
        "checks": "; ".join(f"{check['check']}: {check['verdict']}" for check in claims["checks"]),
    }
    for row in office.books.rows(subject=voice_id, kinds=("voice.reviewed", "voice.revoked")):
        body = row.table
        what = body["decision"] if row.kind == "voice.reviewed" else "revoked"
        facts[f"{what} {_when(row.at_ms / 1000)}"] = f"{body['by']} {body['reason']}".strip()
    says = "In force when the grant was given." if covered else "It did not cover this grant."
    if not reviewed:
        says = "No second operator had approved the voice when the grant was given."
    return Link("Consent", covered, says, facts)


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


_STYLE = """
body { font: 11pt/1.45 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto;
padding: 0 1rem; color: #111 }
h1 { font-size: 1.4rem } section { border: 1px solid #bbb; border-left-width: 6px; padding: .2rem 1rem;
margin: .8rem 0; break-inside: avoid } .holds { border-left-color: #2a7d46 }
.broken { border-left-color: #b3261e }
.unknown { border-left-color: #b58900 } h2 { font-size: 1rem; margin: .5rem 0 } dl { display: grid;
grid-template-columns: 11rem 1fr; gap: .1rem .8rem; margin: .4rem 0 } dt { color: #555 }
dd { margin: 0; overflow-wrap: anywhere } @media print { body { margin: 0 } }
"""


def page(evidence: Evidence) -> str:
    """A self-contained HTML page for the screen and the printer: no scripts, nothing fetched."""
    verdict = "The chain is unbroken." if evidence.unbroken else "The chain is NOT unbroken; see below."
    sections = []
    for link in evidence.links:
        kind = {True: "holds", False: "broken", None: "unknown"}[link.holds]
        facts = "".join(
            f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in link.facts.items()
        )
        sections.append(
            f'<section class="{kind}"><h2>{escape(link.title)}</h2>'
            f"<p>{escape(link.says)}</p><dl>{facts}</dl></section>"
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evidence of consent</title>'
        f"<style>{_STYLE}</style></head><body><h1>From sound to consent</h1>"
        f"<p><strong>{verdict}</strong> Made {_when(evidence.made_at)}.</p>{''.join(sections)}</body></html>"
    )
