"""What can go wrong in `consent`.

ConsentError
├── GrantRefused      no grant, no voice; `.reason` is one of the words in `consent.grant.REASONS`
├── ChallengeError    a challenge is unknown, expired or used
├── RegistrationError a registration was refused
├── LedgerError       the ledger does not verify, or cannot be appended to
└── VaultError        a voice cannot be opened: no key, erased, tampered
"""


class ConsentError(Exception):
    """Base of every error of this package."""


class GrantRefused(ConsentError):
    """A voice may not be used. `reason` is a stable word for events and metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ChallengeError(ConsentError):
    """A challenge cannot be used."""


class RegistrationError(ConsentError):
    """A registration was refused; the message names the check."""


class LedgerError(ConsentError):
    """The ledger is broken or cannot be written."""


class VaultError(ConsentError):
    """A voice's sound cannot be opened."""
