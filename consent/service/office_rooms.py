"""What the office's process holds: the office itself, opened when it is first needed, and its instruments."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from consent.checks.checklist import CHECKS_FILE, Checks
from consent.ledger.witness import Outside
from consent.office.office import NOBODY, ConsentOffice


@dataclass(frozen=True, slots=True)
class OfficePlace:
    """Where an office's things lie: its database, its keys, and what its checks listen with."""

    sql_url: str
    consent_dir: Path
    mark_keys: Path
    models_dir: Path
    grant_s: float = 60.0
    outside: Outside = NOBODY

    def to_json(self) -> dict[str, Any]:
        """For the office's process."""
        paths = ("consent_dir", "mark_keys", "models_dir")
        outside = {**asdict(self.outside), "syslog": self.outside.syslog and str(self.outside.syslog)}
        return {**asdict(self), **{key: str(getattr(self, key)) for key in paths}, "outside": outside}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        paths = ("consent_dir", "mark_keys", "models_dir")
        away = dict(table["outside"])
        outside = Outside(**{**away, "syslog": away["syslog"] and Path(away["syslog"])})
        return cls(**{**table, **{key: Path(table[key]) for key in paths}, "outside": outside})


class OfficeRooms:
    """The only place that opens keys, vault and consent's tables."""

    def __init__(self, place: OfficePlace) -> None:
        self.place = place
        self._office: ConsentOffice | None = None
        self._heard_with: object = None
        self._has_asked = False
        self.alarms = 0
        """how often something new was wrong with the ledger's witnesses"""
        self._lock = threading.Lock()

    def office(self) -> ConsentOffice:
        """The office. Raises `VaultError`, `LedgerError` when keys or database cannot be used at all."""
        with self._lock:
            if self._office is None:
                place = self.place
                self._office = ConsentOffice.open(
                    place.sql_url,
                    place.consent_dir,
                    grant_s=place.grant_s,
                    checks=Checks(),
                    outside=place.outside,
                )
            return self._office

    def witnessed(self) -> ConsentOffice:
        """The office, which has asked its ledger's witnesses by now. Raises as `office` does."""
        office = self.office()
        with self._lock:
            if not self._has_asked:
                office.heads.begin()
                self._has_asked = True
        return office

    def alarm(self, _: str) -> None:
        """Something new is wrong with the ledger's witnesses."""
        self.alarms += 1

    def listening(self) -> ConsentOffice:
        """The office with its instruments, as the files say now. Raises `RegistrationError` too."""
        office = self.office()
        with self._lock:
            if (now := self._instruments()) != self._heard_with:
                office.hear_with(self.load_checks())
                self._heard_with = now
        return office

    def load_checks(self) -> Checks:
        """The instruments that are here. Raises `RegistrationError`."""
        place = self.place
        return Checks.load(place.consent_dir, place.mark_keys, place.models_dir)

    def _instruments(self) -> object:
        """Changes whenever the files that instruments are made of do."""
        found = (
            self.place.consent_dir / CHECKS_FILE,
            self.place.models_dir,
            *self.place.models_dir.glob("*"),
        )
        return tuple((str(path), path.stat().st_mtime_ns) for path in found if path.exists())

    def close(self) -> None:
        """Signs where the ledger stands, and closes the database."""
        with self._lock:
            if self._office is not None:
                self._office.close()
                self._office = None
