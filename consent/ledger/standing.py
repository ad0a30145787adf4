"""What the ledger says now: which voices live, which operators may act. Made by reading rows in order.

Nothing else decides about a voice: a table that somebody edited changes nothing here. Which rows count is for
`consent.ledger.acts` to judge, before they are applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

State = Literal["pending", "active", "rejected", "revoked", "erased"]

GATEWAY: Final = "gateway"
"""The registrar of a voice that was enrolled by phone; no operator has this name."""

QUIET: Final = frozenset({"voice.granted", "voice.used", "registry.sealed"})
"""Kinds of rows that change nothing of the standing; by far the most."""

HOUSE_ITEMS: Final = "house"
"""The subject of rows about what the house keeps of no voice (`consent.archive.vault.HOUSE`)."""
WRONG_CODES: Final = 30
"""Wrong codes of enrolment that all callers together may dial within an hour."""


@dataclass(slots=True)
class VoiceStanding:
    """One voice's place."""

    voice_id: str
    state: State
    record_hash: str
    voice_hash: str
    registrar: str
    submitted_ms: int
    reason: str = ""
    heard: list[str] = field(default_factory=list)
    """operators to whom its sounds were given"""
    approvals: list[str] = field(default_factory=list)
    """operators who listened and approved"""
    findings: str = ""
    """SHA-256 of what the checks found, as the registrar signed it; empty for an older version's rows and
    for a voice that the gateway took"""
    alone: bool = False
    """an older version put it in force by its checks alone; it waits for a reviewer, however long"""
    active_ms: int = 0
    """when its last reviewer approved; 0: it never was in force by a review"""
    handle_mac: str = ""
    """the keyed hash of its name, `kid:hex`; empty for a voice from before there was one"""
    challenge: str = ""
    """the number of the challenge that its registration used up"""
    pin_tries: int = 0
    """tries of its PIN since it was last given right"""
    pin_locked_ms: int = 0
    """until when no PIN is compared"""

    @property
    def approvals_needed(self) -> int:
        """Four eyes: the registrar's and a reviewer's, or two people's where the gateway took the voice."""
        return 2 if self.registrar == GATEWAY else 1


@dataclass(slots=True)
class OperatorStanding:
    """One operator: `public` is base64url of the Ed25519 key; `added_by` is empty for a founder."""

    name: str
    role: str
    public: str
    added_by: str
    revoked: bool = False


@dataclass(slots=True)
class Standing:
    """`signers`: the office's public keys (base64url by kid) as the ledger introduced them."""

    voices: dict[str, VoiceStanding] = field(default_factory=dict)
    operators: dict[str, OperatorStanding] = field(default_factory=dict)
    signers: dict[str, str] = field(default_factory=dict)
    stolen: dict[str, int] = field(default_factory=dict)
    """signing keys that were revoked: kid -> since when (ms); what they sign after that row is nothing"""
    blocked: dict[str, str] = field(default_factory=dict)
    """blocked speakers: id -> label"""
    resumes: int = 0
    """how often the ledger went on after a restored backup"""
    resumed_at: float = 0.0
    """when the act of the newest of them was signed; acts from before are not taken any more"""
    office: str = ""
    """hash of the ledger's first row: the office's identity, which acts name"""
    form: int = 1
    """2 once the ledger says that acts name their office, what they bind, and are good once"""
    spent: dict[str, float] = field(default_factory=dict)
    """acts that were taken: id -> time of signature, for as long as they could be handed in again"""
    challenges: dict[str, bool] = field(default_factory=dict)
    """challenges that operators issued and no registration has used: id -> whether for the telephone"""
    given_up: list[str] = field(default_factory=list)
    """hashes of newer rows, seen by a witness, that an auditor gave up when resuming"""
    wrong_codes_ms: list[int] = field(default_factory=list)
    """when wrong codes of enrolment were dialled, the newest `WRONG_CODES` of them"""
    prints: dict[str, list[Any]] = field(default_factory=dict)
    """fingerprints of recordings that the house keeps: number -> [digest of the sealed item, since (ms)]"""
    uncounted: bool = False
    """there are fingerprints from before they were counted here"""

    def apply(self, kind: str, subject: str | None, at_ms: int, body: dict[str, Any]) -> None:
        """Takes one judged row into account. Raises `KeyError` for a row about what was never there."""
        match kind:
            case "ledger.opened" | "key.rotated":
                self.signers[body["kid"]] = body["public"]
                self.form = max(self.form, int(body.get("acts", 1)))
            case "ledger.acts":
                self.form = max(self.form, int(body["acts"]))
                self.spent.clear()  # older acts name no office, and are not taken any more
            case "key.revoked":
                self.stolen[body["kid"]] = int(body["since_ms"])
            case "challenge.issued":
                self.challenges[body["challenge"]] = bool(body.get("by_phone", True))
            case "operator.added":
                self.operators[body["name"]] = OperatorStanding(
                    body["name"], body["role"], body["public"], body["added_by"]
                )
            case "operator.revoked":
                self.operators[body["name"]].revoked = True
            case "voice.submitted":
                if subject is None:
                    raise KeyError("voice.submitted names no voice")
                self.voices[subject] = VoiceStanding(
                    subject, "pending", body["record_hash"], body["voice_hash"], body["registrar"], at_ms,
                    findings=body.get("findings", ""), alone=self.form < 2 and body["outcome"] == "passed",
                    handle_mac=body.get("handle_mac", ""), challenge=body.get("challenge", ""),
                )  # fmt: skip
                self.challenges.pop(body.get("challenge", ""), None)
                self.uncounted = self.uncounted or "prints" not in body
                self._keep_prints(body.get("prints", ()), at_ms)
            case "prints.counted":
                self.uncounted = False
                self._keep_prints(body["prints"], at_ms)
            case "items.deleted":
                for item in body["items"]:
                    if subject == HOUSE_ITEMS and item["kind"] == "fingerprint":
                        self.prints.pop(str(item["number"]), None)
            case "voice.heard":
                self.voices[subject or ""].heard.append(body["by"])
            case "voice.reviewed":
                voice = self.voices[subject or ""]
                if voice.state == "pending":
                    voice.reason = body["reason"]
                    if body["decision"] != "approve":
                        voice.state = "rejected"
                    else:
                        voice.approvals.append(body["by"])
                        if len(set(voice.approvals)) >= voice.approvals_needed:
                            voice.state, voice.active_ms = "active", at_ms
            case "voice.revoked":
                voice = self.voices[subject or ""]
                if voice.state != "erased":
                    voice.state, voice.reason = "revoked", body["reason"]
            case "voice.erased":
                voice = self.voices[subject or ""]
                voice.state, voice.handle_mac = "erased", voice.handle_mac or body.get("handle_mac", "")
            case "pin.tried" | "pin.locked":
                voice = self.voices[subject or ""]
                voice.pin_tries = int(body.get("tries", voice.pin_tries + 1))
                voice.pin_locked_ms = at_ms + round(float(body.get("for_s", 0.0)) * 1000)
            case "pin.opened":
                voice = self.voices[subject or ""]
                voice.pin_tries = voice.pin_locked_ms = 0
            case "code.wrong":
                self.wrong_codes_ms = [*self.wrong_codes_ms, at_ms][-WRONG_CODES:]
            case "ledger.resumed":
                self.resumes += 1
                if "kid" in body:
                    self.signers[body["kid"]] = body["public"]
                    self.stolen |= {kid: int(since) for kid, since in body["stolen"].items()}
                self.given_up += [str(head) for head in body.get("given_up", ())]
            case "speaker.blocked":
                self.blocked[body["block"]] = body["label"]
            case "speaker.unblocked":
                self.blocked.pop(body["block"], None)

    @property
    def has_auditor(self) -> bool:
        """Whether an auditor may act."""
        return any(known.role == "auditor" and not known.revoked for known in self.operators.values())

    def _keep_prints(self, found: Iterable[Mapping[str, Any]], at_ms: int) -> None:
        for item in found:
            self.prints[str(item["number"])] = [item["sealed_sha256"], int(item.get("since_ms", at_ms))]

    def founder(self, name: str) -> str:
        """To whom an operator's appointment goes back: themselves, or who made them one, and so on."""
        while (known := self.operators.get(name)) is not None and known.added_by:
            name = known.added_by
        return name

    def to_json(self) -> dict[str, Any]:
        """For the signed checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Self:
        """Reads what `to_json` wrote. Raises `KeyError`, `TypeError`, `ValueError`."""
        return cls(
            voices={key: VoiceStanding(**value) for key, value in table["voices"].items()},
            operators={key: OperatorStanding(**value) for key, value in table["operators"].items()},
            **{
                "uncounted": bool(table["voices"]),
                **{key: value for key, value in table.items() if key not in ("voices", "operators")},
            },
        )
