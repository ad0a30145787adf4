"""User and host of whoever is called or calls: the parts that a plan compares, and a signature names."""

from __future__ import annotations

import re
from typing import Final

_SCHEME: Final = re.compile(r"(sips?|tel):", re.IGNORECASE)
_CONTEXT: Final = re.compile(r";\s*phone-context\s*=\s*(\+[0-9.()-]+)(?=;|$)", re.IGNORECASE)
"""The global number that a local number goes on from (RFC 3966 §5.1.5); a domain says no digits."""
_SEPARATORS: Final = str.maketrans("", "", "-.() ")


def split_uri(text: str) -> tuple[str, str]:
    """(user, host) of a SIP URI, `user@host`, a number, or a bare user; host may be empty.

    Parameters and port are left out, those within the user too (`;ext=`, number portability's `;npdi;rn=`). A
    number loses its visual separators; a local one gets its first digits from its `phone-context`.
    """
    text = text.strip().removeprefix("<").partition(">")[0]
    scheme = _SCHEME.match(text)
    rest = text if scheme is None else text[scheme.end() :]
    user, at, host = rest.rpartition("@")
    if not at:
        user, host = ("", rest) if scheme is not None and scheme[1].lower() != "tel" else (rest, "")
    host = re.split(r"[;?]", host, maxsplit=1)[0]
    host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    context = _CONTEXT.search(user)
    user = re.split(r"[;:?]", user, maxsplit=1)[0]
    bare = user.translate(_SEPARATORS)
    if not bare.removeprefix("+").replace("*", "").isdigit():
        return user, host.lower()
    if context is not None and not bare.startswith("+"):
        bare = context[1].translate(_SEPARATORS) + bare
    return bare, host.lower()
