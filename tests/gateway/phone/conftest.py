"""The exchange that the test phone calls."""

from __future__ import annotations

from tests.gateway.rtp.conftest import exchange, opened

__all__ = ["exchange", "opened"]
