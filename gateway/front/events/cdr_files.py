"""CDRs as files: a line of JSON, and a row of CSV, for each call that is over. Each is written once.

A file is closed when its day (UTC) is over or it is large, and then changes no more:
`cdr-2026-03-02-0001.jsonl`, `cdr-2026-03-02-0002.jsonl`, …. A row is on disk (fsync) before its event is done
with; one that was written just before a kill -9 is found in the file's end and not written again. In CSV no
cell is a formula, whatever a caller calls itself.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from gateway.front.events.courier import TAKEN, TellOutcome
from gateway.front.events.event_shelf import KeptEvent
from gateway.store.call_events import CallDetail

COLUMNS: Final = ("event_id", *(one.name for one in fields(CallDetail)))
LOOKED_AT: Final = 256 * 1024
"""Bytes of a file's end in which a row that was written already is looked for."""
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes a cell for a formula by."""


class CdrFiles:
    """The folder of CDRs, as a courier tells it of calls that are over. `forms`: `json`, `csv`, or both."""

    name = "cdr files"
    at_once = 1
    retry_s = float("inf")

    def __init__(self, folder: Path, forms: tuple[str, ...], longest: int, keep_s: float) -> None:
        """`longest`: bytes after which a new file begins. `keep_s`: how long a file is kept, seconds."""
        self._folder = folder
        self._forms = forms
        self._longest = longest
        self._keep_s = keep_s

    def wants(self, event: KeptEvent) -> bool:
        """Whether it has a CDR."""
        return event.type == "call.ended" and bool(self._forms)

    async def tell(self, event: KeptEvent, missed: int) -> TellOutcome:
        """Writes its CDR."""
        try:
            await asyncio.to_thread(self._write, event)
        except OSError as error:
            return TellOutcome("later", error.strerror or str(error))
        return TAKEN

    def _write(self, event: KeptEvent) -> None:
        cdr: dict[str, Any] = {"event_id": event.id, **event.data["cdr"]}
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if "json" in self._forms:
            line = json.dumps(cdr, separators=(",", ":"), ensure_ascii=False) + "\n"
            self._append("jsonl", line, event.id)
        if "csv" in self._forms:
            self._append("csv", _row([cell(cdr.get(name)) for name in COLUMNS]), event.id)
        self._forget()

    def _append(self, form: str, line: str, event_id: str) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        part = 1
        while (following := self._folder / f"cdr-{day}-{part + 1:04}.{form}").exists():
            part += 1
        path = self._folder / f"cdr-{day}-{part:04}.{form}"
        with os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0
        ) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOOKED_AT))
            end = file.read(LOOKED_AT)
            if event_id.encode() in _ids(end):
                return
            if end and not end.endswith(b"\n"):  # a kill -9 in the middle of a row
                file.truncate(size := size - len(end) + end.rfind(b"\n") + 1)
            if size < self._longest:
                text = line if size or form != "csv" else _row(list(COLUMNS)) + line
                file.write(text.encode())
                os.fsync(file.fileno())
                return
        following.touch(mode=0o600)
        self._append(form, line, event_id)

    def _forget(self) -> None:
        before = time.time() - self._keep_s
        for path in self._folder.glob("cdr-*.*"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)


def _ids(end: bytes) -> set[bytes]:
    """The ids of the rows in a file's end that are whole."""
    found = set()
    for line in end.split(b"\n")[:-1]:
        found.add(line.partition(b",")[0].removeprefix(b'{"event_id":').strip(b'"\r'))
    return found


def _row(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def cell(value: object) -> str:
    """A value as a cell of CSV: of one line, and no formula (a caller may call itself `=HYPERLINK(…)`)."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value)
    text = " ".join(value.replace("\0", "").splitlines())
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
