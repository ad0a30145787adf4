"""The owner's own door, by telephone.

With the PIN set at registration, owners hear where the voice was used, and take it back. Nothing about a
voice is said to those who do not know its PIN.

For the dialplan verb `voice_owner`: `enter` (the PIN by DTMF) gives an `Owner`; say `owner.spoken()`; when
the caller says or presses "revoke", ask for the PIN once more and call `owner.revoke(pin)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from consent.errors import ClockError, PinRefused, VaultError
from consent.office import pin as pins
from consent.office.office import ConsentOffice
from consent.office.usage import Use, spoken, uses
from consent.office.withdrawal import Withdrawals

log = structlog.get_logger("consent")


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody who gave the PIN in this call."""

    desk: OwnerDesk
    voice_id: str
    handle: str
    call_id: str

    def uses(self, since: float = 0.0) -> list[Use]:
        """Calls with the voice, oldest first."""
        return uses(self.desk.office.books, self.voice_id, since)

    def spoken(self, language: str = "en") -> str:
        """What to say to the owner of the voice's last thirty days."""
        now = self.desk.office.clock()
        return spoken(self.uses(now - 30 * 86_400), now, language)

    def revoke(self, pin: str) -> None:
        """Revokes the voice, the PIN given once more. Raises `PinRefused`, `LedgerError`."""
        self.desk.check(self.voice_id, pin)
        office = self.desk.office
        Withdrawals(office.books, office.vault).revoke_by_owner(self.voice_id, "by its owner", self.call_id)


class OwnerDesk:
    """Blocking (a PIN takes about 50 ms to compare): from an event loop, call it by `asyncio.to_thread`."""

    def __init__(self, office: ConsentOffice) -> None:
        self.office = office

    def enter(self, handle: str, pin: str, call_id: str) -> Owner:
        """Raises `PinRefused` (`.locked_s` says for how long no more tries are taken), `LedgerError`.

        It says the same of a voice that is unknown, has no PIN, or was erased: a stranger learns nothing.
        """
        standing = self.office.look()
        try:
            with self.office.archive.reading() as connection:
                voice = self.office.handles.find(connection, standing, handle)
        except VaultError as error:
            log.error("voice.tampered", voice=handle, error=str(error))
            voice = None
        if voice is None or voice.state == "erased":  # a copy of its PIN may have been put back
            pins.matches(pin, pins.NOBODYS)  # it shall take as long
            raise PinRefused("this PIN does not open this voice")
        self.check(voice.voice_id, pin)
        return Owner(self, voice.voice_id, handle, call_id)

    def check(self, voice_id: str, pin: str) -> None:
        """Counts the try, then compares. Raises `PinRefused`."""
        office = self.office
        with office.books.writing() as writing:
            try:
                now = writing.now()
            except ClockError:  # a clock that may be wrong ends no lock
                now = office.books.tip[2] / 1000
            lock_s = pins.count_try(writing, voice_id, now)
        try:
            with office.archive.reading() as connection:
                kept = office.vault.get(connection, voice_id, "pin")
        except VaultError:
            kept = pins.NOBODYS
        if not pins.matches(pin, kept):
            raise PinRefused("this PIN does not open this voice", lock_s)
        with office.books.writing() as writing:
            pins.clear(writing, voice_id)
