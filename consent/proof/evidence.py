"""Evidence for one marked clip, on one page: the mark, the call it names, the grant, the consent record.

The call's facts come from the gateway's registry as a plain mapping (`call_id`, `payload`, `grant_jti`,
`voice`, `voice_hash`, `dialplan`, `route`, `caller`, `called`, `started_at`, `ended_at`, `how`, and `grants`:
each grant that the call had, with `jti`, `route`, `voice`, `voice_hash`, `given_at`, `spoken_s`; any may be
missing): consent knows no gateway. Whoever can write SQL can change such facts; so the payload is computed
again from the call's id with the mark's keys, and the row is compared with what the ledger sealed of it. What
each link rests on is said beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from consent.errors import ConsentError, GrantRefused
from consent.grants.scope import STOCK, Scope
from consent.ledger.chain import Proof, Row
from consent.office.office import ConsentOffice
from consent.office.record import agreed
from consent.office.stock import STOCK_RECORD, UNHEARD_HASH
from consent.proof.call_seals import SealedCalls, seal_of
from watermark.keys import MarkKey
from watermark.payload import call_payload

PAYLOAD_MASK: Final = (1 << 48) - 1
"""The bits of a payload that name the call; the rest name the gateway's key."""
UNFIT: Final = "The registry's row was changed: this gateway's keys make another payload for that call."


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


@dataclass(frozen=True, slots=True)
class ConsentOfCall:
    """What the office says of a call: the chain from the grants on, and whether the ledger verifies."""

    at: float
    """when it said so, seconds since the epoch"""
    proof: Proof
    links: list[Link]


def consent_of(office: ConsentOffice, call: Mapping[str, Any] | None) -> ConsentOfCall:
    """The office's part of the chain; None for a mark that names no call."""
    if call is None:
        return ConsentOfCall(office.clock(), unread("there is no call"), [])
    try:
        proof = office.books.prove()
    except ConsentError as error:
        proof = unread(str(error))
    links: list[Link] = []
    given = _given(call)
    for grant in given:
        links += _stock(office, grant) if grant.get("voice") == STOCK else _person(office, grant)
    hidden = _hidden(office, call, given)
    links += hidden
    if hidden or any(grant.get("voice") != STOCK for grant in given):
        links.append(_ledger(proof))
    return ConsentOfCall(office.clock(), proof, links)


def gather(
    consent: ConsentOfCall, call: Mapping[str, Any] | None, mark: Mapping[str, Any] | None = None, *,
    sealed: Iterable[Row] = (), keys: Sequence[MarkKey] | None = None, calls: SealedCalls | None = None,
    misnamed: str | None = None,
) -> Evidence:  # fmt: skip
    """The chain for a call, by what the office says of it (`consent_of`), and the registry and the mark.

    `mark` is what the detector said (`payload`, `p_value`), None when the call was asked for by its id.
    `sealed` are the ledger's rows of the kind `SEALED`, in order; they are read when the ledger verifies.
    `keys` are the mark's, all of the ring; `calls` is the registry, as far as its seals go. `misnamed`: the
    call to which the registry's payload led, though the keys make another for it. A missing link is part of
    the answer, and nothing is raised for it; what `calls` raises is.
    """
    links: list[Link] = []
    if mark is not None:
        facts = {key: str(value) for key, value in mark.items()}
        links.append(Link("Watermark", True, "The detector found this gateway's mark in the clip.", facts))
    if call is None:
        says = "No call of this gateway has this mark's payload."
        if misnamed is not None:
            says = f"The registry has this mark's payload for the call {misnamed}. {UNFIT}"
        links.append(Link("Call", False, says))
        return Evidence(consent.at, links)
    links += [_call(call, mark, keys, misnamed), _registry(consent, call, calls, sealed), *consent.links]
    return Evidence(consent.at, links)


def unread(why: str) -> Proof:
    """What is known of a ledger that cannot be read."""
    return Proof(0, 0, why, None)


def _given(call: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every grant of a call that the registry tells of: one that goes on as another route has another."""
    table = call.get("grants") or []
    given: list[Mapping[str, Any]] = [{**call, **_renamed(grant)} for grant in table]
    if call.get("grant_jti") not in {grant["grant_jti"] for grant in given}:
        given.insert(0, call)
    return given


def _hidden(office: ConsentOffice, call: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> list[Link]:
    """A call's used grants that the ledger tells of and the registry does not, or as the stock voice's."""
    known = {str(grant.get("grant_jti")) for grant in given if grant.get("voice") != STOCK}
    try:
        rows = office.books.reader.rows(
            kinds=("voice.granted", "voice.used"), holding=str(call.get("call_id"))
        )
    except ConsentError:
        return []  # `_person` and `_ledger` say that it cannot be read
    ours = [row for row in rows if row.table["call"] == call.get("call_id") and row.table["jti"] not in known]
    unused = {row.table["jti"] for row in ours if row.kind == "voice.used" and not row.table["seconds"]}
    says = "The ledger has this grant of the call, and the registry does not, or not as a person's."
    return [
        Link("Grant", False, says, {"grant": row.table["jti"], "dialplan": row.table["dialplan"]})
        for row in ours
        if row.kind == "voice.granted" and row.table["jti"] not in unused
    ]


def _renamed(grant: Mapping[str, Any]) -> dict[str, Any]:
    return {("grant_jti" if key == "jti" else key): value for key, value in grant.items()}


def fits_payload(call: Mapping[str, Any], keys: Sequence[MarkKey]) -> bool:
    """Whether a call's payload is the one that one of these keys makes for its id."""
    made = {call_payload(key, str(call.get("call_id"))) for key in keys}
    whole = call.get("payload_whole")
    payload = call.get("payload")
    if whole is not None:
        return whole in made and (payload is None or payload == whole & PAYLOAD_MASK)
    return payload in {each & PAYLOAD_MASK for each in made}


def _call(
    call: Mapping[str, Any],
    mark: Mapping[str, Any] | None,
    keys: Sequence[MarkKey] | None,
    misnamed: str | None,
) -> Link:
    facts = {
        key: _when(call[key]) if key.endswith("_at") else str(call[key])
        for key in ("call_id", "started_at", "ended_at", "how", "dialplan", "route", "caller", "called")
        if call.get(key) is not None
    }
    if call.get("payload") is not None:
        facts["payload"] = f"{int(call['payload']):012x}"
    if misnamed is not None:
        says = f"The mark's keys make its payload for this call; the registry has it for {misnamed}. {UNFIT}"
        return Link("Call", False, says, facts)
    if keys is None:
        says = "The mark's keys are not at hand: whether the payload is this call's was not computed."
        return Link("Call", None, says, facts)
    if not fits_payload(call, keys):
        return Link("Call", False, f"The payload is not this call's. {UNFIT}", facts)
    if mark is not None and not _names(mark, call):
        return Link("Call", False, "The mark in the clip names another call than this one.", facts)
    says = "The mark's keys make this payload for this call's id. The caller's name proves nothing."
    return Link("Call", True, says, facts)


def _names(mark: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    """Whether the detector's payload (hexadecimal, 64 bits or 48 of them) is the call's."""
    payload = mark.get("payload")
    if payload is None:
        return True  # it only said that the mark is ours
    found = int(str(payload), 16)
    return found in (call.get("payload_whole"), call.get("payload"))


def _registry(
    consent: ConsentOfCall, call: Mapping[str, Any], calls: SealedCalls | None, sealed: Iterable[Row]
) -> Link:
    if not consent.proof.ok:
        return Link("Registry", None, f"The ledger that seals it does not verify: {consent.proof.fault}")
    if calls is None:
        return Link("Registry", None, "The registry is not at hand: its seal in the ledger was not compared.")
    try:
        seal = seal_of(sealed, calls, call, consent.at)
    except ConsentError as error:
        return Link("Registry", None, f"The ledger cannot be read: {error}")
    return Link("Registry", seal.holds, seal.says, dict(seal.facts))


def _stock(office: ConsentOffice, call: Mapping[str, Any]) -> list[Link]:
    voice = office.stock.voice
    # the hash of the record alone is of a call before there was a clip
    same = call.get("voice_hash") in (voice.voice_hash, UNHEARD_HASH)
    facts = {"voice": STOCK, "grant": str(call.get("grant_jti")), "voice_hash": str(call.get("voice_hash"))}
    facts |= {key: str(call[key]) for key in ("route", "purpose", "language") if call.get(key)}
    if call.get("spoken_s") is not None:
        facts["spoken"] = f"{call['spoken_s']:.1f} s"
    says = str(STOCK_RECORD["statement"])
    return [
        Link("Voice", same, says if same else "The call names another hash than the stock voice's.", facts)
    ]


def _person(office: ConsentOffice, call: Mapping[str, Any]) -> list[Link]:
    jti = call.get("grant_jti")
    try:
        standing = office.look()
        rows = office.books.reader.rows(kinds=("voice.granted", "voice.used"), holding=str(jti))
    except ConsentError as error:
        return [Link("Grant", None, f"The ledger cannot be read: {error}")]
    of_it = [row for row in rows if row.table["jti"] == jti]
    row = next((row for row in reversed(of_it) if row.kind == "voice.granted"), None)
    if row is None:
        return [Link("Grant", False, f"The ledger has no grant {jti}.")]
    body = row.table
    stolen_ms = standing.stolen.get(row.kid)
    fits: bool | None = (
        body["call"] == call.get("call_id")
        and body["voice_hash"] == call.get("voice_hash")
        and call.get("route") in (None, body["dialplan"])
    )
    facts = {
        "grant": str(jti),
        "ledger row": f"{row.seq}, {row.hash[:16]}",
        "given": _when(row.at_ms / 1000),
        "purpose": body["purpose"],
        "dialplan": body["dialplan"],
        "language": body["language"],
    }
    for used in of_it:
        if used.kind == "voice.used":
            facts["spoken"] = f"{float(used.table['seconds']):.1f} s"
    says = (
        "Given for this call, this voice and this route."
        if fits
        else "This grant is for another call, voice or route."
    )
    if fits and stolen_ms is not None and row.at_ms >= stolen_ms:
        fits, says = None, f"The key that signed this row, {row.kid}, was stolen by then."
    links = [Link("Grant", fits, says, facts)]
    voice = standing.voices.get(row.subject or "")
    if voice is None:
        return [*links, Link("Consent", False, "The ledger does not know the voice of this grant.")]
    try:
        links.append(_consent(office, voice.voice_id, row.at_ms / 1000, body))
    except ConsentError as error:
        links.append(Link("Consent", None, f"The ledger cannot be read: {error}"))
    return links


def _ledger(proof: Proof) -> Link:
    if proof == unread(proof.fault):
        return Link("Ledger", None, f"The ledger cannot be read: {proof.fault}")
    says = f"{proof.rows} rows verify." if proof.ok else f"Row {proof.bad} is bad: {proof.fault}"
    return Link("Ledger", proof.ok, says, {"head": proof.head.hash} if proof.head else {})


def _consent(office: ConsentOffice, voice_id: str, at: float, grant: Mapping[str, Any]) -> Link:
    voice = office.look().voices[voice_id]
    facts = {"record": voice.record_hash, "voice is now": voice.state}
    try:
        record = office.records.open(voice)
    except ConsentError as error:
        says = f"The ledger names the record by its hash; it cannot be opened any more ({error})."
        held = grant["record_hash"] == voice.record_hash and 0 < voice.active_ms <= at * 1000
        return Link("Consent", held, says, facts)
    claims = record.claims
    reviewed = 0 < voice.active_ms <= at * 1000
    scope = Scope(record.handle, grant["purpose"], grant["dialplan"], grant["language"], grant["call"])
    covered = reviewed and grant["record_hash"] == voice.record_hash
    try:
        record.refuse(scope, now=at)
    except GrantRefused:
        covered = False
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
    for row in office.books.reader.rows(subject=voice_id, kinds=("voice.reviewed", "voice.revoked")):
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
