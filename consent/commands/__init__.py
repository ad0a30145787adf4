"""The commands `voicegate voice`, `voicegate ledger` and `voicegate operator`."""
