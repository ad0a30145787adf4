"""The signed, append-only ledger, what it says now, and the acts that bind it."""
