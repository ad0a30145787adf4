"""The commands `voicegate voice`, `voicegate ledger`, `voicegate operator`."""

from __future__ import annotations

from consent import cli_records  # noqa: F401 - its commands join `voice`
from consent.cli_ledger import ledger
from consent.cli_operator import operator
from consent.cli_voice import voice

__all__ = ["ledger", "operator", "voice"]
