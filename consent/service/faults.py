"""Consent's errors as they cross the socket: the same class with the same words on both sides."""

from __future__ import annotations

from typing import Any, Final

from consent.errors import (
    ChallengeError,
    ClockError,
    ConsentError,
    GrantRefused,
    LanguageError,
    LedgerError,
    ModelFileError,
    ModelFileMissing,
    OfficeAway,
    OperatorError,
    PinRefused,
    RegistrationError,
    SoundError,
    VaultError,
    WitnessError,
)

PLAIN: Final = {
    kind.__name__: kind
    for kind in (
        ChallengeError, ClockError, LanguageError, LedgerError, ModelFileError, ModelFileMissing,
        OfficeAway, OperatorError, SoundError, VaultError, WitnessError,
    )
}  # fmt: skip
"""Those that are their text alone."""


def told(error: ConsentError) -> dict[str, Any]:
    """What is written of an error."""
    table: dict[str, Any] = {"kind": type(error).__name__, "text": str(error)}
    match error:
        case GrantRefused():
            table["word"] = error.reason
        case SoundError():
            pass
        case RegistrationError():
            table["word"] = error.check
        case PinRefused():
            table["locked_s"] = error.locked_s
    return table


def heard(table: dict[str, Any]) -> ConsentError:
    """The error that `told` wrote; `OfficeAway` for one that this version does not know."""
    kind, text, word = str(table.get("kind")), str(table.get("text", "")), str(table.get("word", ""))
    match kind:
        case "GrantRefused":
            return GrantRefused(word, text)
        case "RegistrationError":
            return RegistrationError(word, text)
        case "PinRefused":
            return PinRefused(text, float(table.get("locked_s", 0.0)))
    known = PLAIN.get(kind)
    return OfficeAway(f"the consent office failed: {text}") if known is None else known(text)
