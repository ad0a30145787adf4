"""What the ledger says now: which voices live, which operators may act. Made by reading rows in order.

Nothing else decides about a voice: a table that somebody edited changes nothing here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

State = Literal["pending", "active", "rejected", "revoked", "erased"]

GATEWAY: Final = "gateway"
"""The registrar of a voice that was enrolled by phone; no operator has this name."""

QUIET: Final = frozenset({"voice.granted", "voice.used"})
"""Kinds of rows that change nothing of the standing; by far the most."""


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
    blocked: dict[str, str] = field(default_factory=dict)
    """blocked speakers: id -> label"""
    resumes: int = 0
    """how often the ledger went on after a restored backup"""

    def apply(self, kind: str, subject: str | None, at_ms: int, body: dict[str, Any]) -> None:
        """Takes one verified row into account. Raises `KeyError` for a row about what was never there."""
        match kind:
            case "ledger.opened" | "key.rotated":
                self.signers[body["kid"]] = body["public"]
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
                    subject, "active" if body["outcome"] == "passed" else "pending",
                    body["record_hash"], body["voice_hash"], body["registrar"], at_ms,
                )  # fmt: skip
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
                            voice.state = "active"
            case "voice.revoked":
                voice = self.voices[subject or ""]
                if voice.state != "erased":
                    voice.state, voice.reason = "revoked", body["reason"]
            case "voice.erased":
                self.voices[subject or ""].state = "erased"
            case "ledger.resumed":
                self.resumes += 1
            case "speaker.blocked":
                self.blocked[body["block"]] = body["label"]
            case "speaker.unblocked":
                self.blocked.pop(body["block"], None)

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
            signers=dict(table["signers"]),
            blocked=dict(table["blocked"]),
            resumes=int(table["resumes"]),
        )
