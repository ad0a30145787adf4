"""Which numbers call for help: the house takes no such call anywhere, and says so."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote

EMERGENCY: Final = ("112", "911", "999", "110")
NO_HELP: Final = "no emergency calls here: use another telephone"
_SERVICE: Final = re.compile(r"urn:service:sos(\.[a-z0-9.-]*)?", re.IGNORECASE)
"""RFC 5031: whatever the numbers of a country are."""
_BY_TRUNK: Final = re.compile(r"trunk:[^/]*/")
"""What stands before a number that a plan has called by a trunk."""
_SCHEME: Final = re.compile(r"(sips?|tel):", re.IGNORECASE)
_SEPARATORS: Final = str.maketrans("", "", "-.() \t/")


def is_emergency(called: str, numbers: Collection[str]) -> bool:
    """Whether a URI or a number that is called is one of these, however it is written; "sos" by RFC 5031 is.

    A `+` before it does not count, nor what stands behind a `;`, nor separators.
    """
    text = unicodedata.normalize("NFKC", called.strip().lstrip("<").partition(">")[0])
    text = _BY_TRUNK.sub("", text)
    if _SERVICE.fullmatch(text.partition(";")[0]) is not None:
        return bool(numbers)
    scheme = _SCHEME.match(text)
    rest = text if scheme is None else text[scheme.end() :]
    before, at, after = rest.rpartition("@")
    user = unquote(before if at else after, errors="replace")
    return re.split("[;:?]", user, maxsplit=1)[0].translate(_SEPARATORS).lstrip("+") in numbers
