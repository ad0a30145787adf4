"""The commands `voicegate voice`, `voicegate ledger`, `voicegate operator`."""

from __future__ import annotations

from consent.commands import voice_records as cli_records  # noqa: F401 - its commands join `voice`
from consent.commands.ledger_commands import ledger
from consent.commands.operator_commands import operator
from consent.commands.voice_commands import voice

__all__ = ["ledger", "operator", "voice"]
