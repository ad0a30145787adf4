"""Addresses of Redis and SQL as they may be shown: without passwords."""

from __future__ import annotations

import re
from typing import Final

_LOGIN: Final = re.compile(r"(://[^:/@\s]*):[^/\s]*@")
_OPTION: Final = re.compile(r"([?&][^=&\s]*(?:passw|pwd|secret|token)[^=&\s]*=)[^&\s]*", re.IGNORECASE)


def bare(text: str, mask: str = "") -> str:
    """The text, a URL or one that holds URLs, without their passwords; `mask` stands where a login's was."""
    return _OPTION.sub(r"\1***", _LOGIN.sub(rf"\1{mask}@", text))
