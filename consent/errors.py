"""What can go wrong in `consent`. Every text is fit for an operator's eyes.

ConsentError
├── GrantRefused       no grant, no voice; `.reason` is one of the words in `consent.grants.grant.REASONS`
├── ChallengeError     a challenge is unknown, expired or used
├── RegistrationError  a registration was refused; `.check` is the word for the check that refused it
│   └── SoundError     a recording cannot be read or is not fit
├── OperatorError      an operator is unknown, revoked, has another role, or the key does not fit
├── PinRefused         a PIN is wrong or locked
├── LedgerError        the ledger does not verify, or cannot be appended to
│   ├── ClockError     this machine's clock may not be believed, so nothing is written by it
│   └── WitnessError   somebody outside has seen more of the ledger than is here, or cannot be asked
├── VaultError         a voice cannot be opened: no key, erased, tampered; or the office's keys cannot be read
├── OfficeAway         the office's process cannot be asked now, or does not let this user ask
├── LanguageError      a model does not know a language
└── ModelFileError     a model file cannot be fetched, or is not the one that this program knows
    └── ModelFileMissing  it was not fetched yet
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
    """A registration was refused. `check` is a stable word: a check's name, `name`, `terms` or the like."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


class SoundError(RegistrationError):
    """A recording cannot be used."""

    def __init__(self, message: str) -> None:
        super().__init__("sound", message)


class OperatorError(ConsentError):
    """An operator may not do this."""


class PinRefused(ConsentError):
    """The PIN does not open the voice. `locked_s` is above zero while no further try is taken."""

    def __init__(self, message: str, locked_s: float = 0.0) -> None:
        super().__init__(message)
        self.locked_s = locked_s


class LedgerError(ConsentError):
    """The ledger is broken or cannot be written."""


class ClockError(LedgerError):
    """The clock here disagrees with another; the text says by how much, with which, and what to do."""


class WitnessError(LedgerError):
    """A witness has seen another ledger than the one here, or a witness is away."""


class VaultError(ConsentError):
    """A voice's sound cannot be opened."""


class OfficeAway(ConsentError):
    """The office's process cannot be asked now, does not understand, or does not let this user ask."""


class LanguageError(ConsentError):
    """A model that hears words does not know the language."""


class ModelFileError(ConsentError):
    """A model file cannot be fetched or used."""


class ModelFileMissing(ModelFileError):
    """A model file was not fetched yet; the message says how to fetch it."""
