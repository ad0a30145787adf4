"""How `old_ledger.json` was made: run at commit acbef43, the last before rows were judged by their acts.

PYTHONPATH=. python old_ledger_made.py OUT.json

It holds every row of a ledger that the older version wrote in honesty, its keys (of this ledger alone), and
two voices' records: "jane", whom bob has heard and approved, and "joe", whom that version put in force
because every check passed. This version cannot run it any more: it stands here to say what the rows are.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from consent.checks.checklist import Checks
from consent.grants.grant import b64
from consent.ledger.operators import OperatorDesk, OperatorKey
from consent.office.office import ConsentOffice
from consent.office.record import Reference
from consent.office.rotation import Rotation
from consent.office.withdrawal import Withdrawals
from tests.consent.conftest import (
    Clock,
    Desk,
    PlannedClassifier,
    PlannedMark,
    PlannedRecogniser,
    PlannedSpeaker,
    prompt,
)


def make(folder: Path) -> dict[str, object]:
    clock = Clock()
    checks = Checks(PlannedSpeaker(), PlannedRecogniser(), PlannedMark(), PlannedClassifier())
    url = f"sqlite:///{folder}/voicegate.db"
    office = ConsentOffice.open(url, folder / "consent", checks=checks, clock=clock)
    keys = {name: OperatorKey.make(name) for name in ("alice", "bob", "carol", "rosa")}
    for name, role in (("alice", "registrar"), ("bob", "reviewer"), ("carol", "auditor")):
        OperatorDesk(office.books).add(name, role, keys[name].public, None)
    act = keys["bob"].act("operator", clock.now, name="rosa", role="reviewer", public=keys["rosa"].public)
    OperatorDesk(office.books).add("rosa", "reviewer", keys["rosa"].public, act)
    desk = Desk(office, clock, keys, lambda: office)
    made = {}
    desk.checks.classifier = None
    made["jane"] = desk.submit()
    desk.review()
    desk.checks.classifier = PlannedClassifier()
    made["joe"] = desk.submit(
        handle="joe", statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "t"),)
    )
    assert made["joe"].state == "active"
    clock.now += 60
    desk.grant()
    office.keys.add_signer(
        type(office.keys.signer).make()
    )  # a rotation cut short, finished at the next start
    again = ConsentOffice.open(url, folder / "consent", checks=checks, clock=clock)
    Rotation(again.books, again.vault).signing(desk.act("alice", "rotate"))
    Rotation(again.books, again.vault).master(desk.act("alice", "rotate"))
    mary = Desk(again, clock, keys, lambda: again).submit(
        handle="mary",
        statement=prompt("demo-moreinfo"),
        references=(Reference(prompt("demo-abouttotry"), "t"),),
    )
    act = desk.act("alice", "revoke", voice_id=mary.voice_id)
    Withdrawals(again.books, again.vault).revoke("mary", "asked", act)
    clock.now += 10
    act = desk.act("alice", "erase", voice_id=mary.voice_id)
    Withdrawals(again.books, again.vault).erase("mary", "asked", act)
    found = again.look().voices
    assert (found[made["jane"].voice_id].state, found[made["joe"].voice_id].state) == ("active", "active")
    again.books.save_checkpoint()
    with again.archive.reading() as connection:
        records = {
            name: again.vault.get(connection, done.voice_id, "record").decode() for name, done in made.items()
        }
    return {
        "voices": {name: done.voice_id for name, done in made.items()},
        "records": records,
        "operators": {name: b64(key.private.private_bytes_raw()) for name, key in keys.items()},
        "keys": json.loads((folder / "consent" / "office-keys.json").read_text()),
        "head": (folder / "consent" / "ledger-head").read_text(),
        "rows": [row.to_json() for row in again.books.reader.rows()],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        table = make(Path(name))
    Path(sys.argv[1]).write_text(json.dumps(table, indent=0) + "\n")
