"""What the doctor says of each thing that it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at; `fix` says what to do, and is empty when all is well."""

    what: str
    state: State
    text: str
    fix: str = ""


def ok(what: str, text: str) -> Diagnosis:
    """The diagnosis of a thing that is as it should be."""
    return Diagnosis(what, "ok", text)
