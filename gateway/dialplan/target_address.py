"""Where a target of `[targets]` is: at a trunk, at a registered telephone, or at a SIP address.

office = "trunk:carrier/+493012345"     # our line calls it by a trunk, and joins the two
reception = "user:reception"            # … or by the telephone that is registered as that user
desk = "sip:100@10.0.0.5"               # the caller is asked to call it (REFER)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

NUMBER: Final = r"\+?[0-9*#]{1,32}"
TRUNK_NAME: Final = r"[a-z0-9][a-z0-9_-]{0,39}"
_TRUNK: Final = re.compile(rf"trunk:({TRUNK_NAME})/({NUMBER})")
_USER: Final = re.compile(r"user:([A-Za-z0-9._+-]{1,64})")
_REFERRED: Final = re.compile(r"sips?:[^\s<>\"@]+(@[^\s<>\"@]+)?|tel:\+?[0-9().-]+")


@dataclass(frozen=True, slots=True)
class TrunkTarget:
    """A number behind a trunk."""

    trunk: str
    number: str


@dataclass(frozen=True, slots=True)
class UserTarget:
    """The telephone that is registered as this user."""

    user: str


TargetAddress = TrunkTarget | UserTarget | None
"""None: an address that a caller is referred to."""


def target_address(text: str) -> TargetAddress:
    """Raises `ValueError` for what is no address of a target."""
    if (found := _TRUNK.fullmatch(text)) is not None:
        return TrunkTarget(found[1], found[2])
    if (found := _USER.fullmatch(text)) is not None:
        return UserTarget(found[1])
    if _REFERRED.fullmatch(text) is None:
        raise ValueError(
            f'{text!r} is not an address; write for example "trunk:carrier/+493012345", "user:reception" '
            'or "sip:100@10.0.0.5"'
        )
    return None


def is_called(text: str) -> bool:
    """Whether our line calls it; else the caller is referred there."""
    return text.startswith(("trunk:", "user:"))
