"""How fast consent is: a grant, a renewal, a whole ledger verified, a start.

python -m benchmarks.consent [--rows 100000] [--grants 1000] [--sql postgresql://…]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import click
import numpy as np
from sqlalchemy import insert

from consent.archive.tables import LEDGER
from consent.checks.checklist import Outcome
from consent.checks.sound import of_call
from consent.grants.scope import Scope
from consent.ledger.chain import Row
from consent.ledger.operators import OperatorKey
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.record import Reference, draft
from consent.office.registration import Draft
from consent.office.submission import Submission
from consent.service.front_office import FrontOffice
from consent.service.office_client import OfficeClient
from consent.service.office_door import office_of
from consent.service.office_rooms import OfficePlace
from consent.service.operator_questions import AskFacts
from consent.statements.statement import Terms

ABSENT = (Path("/nonexistent"), Path("/nonexistent"))
"""No mark keys and no model files: nothing is listened to here."""


def make_voice(office: ConsentOffice, handle: str) -> str:
    """A voice in force, past its checks, with the acts that it needs and no more. Noise for a voice."""
    noise = np.random.default_rng(1).normal(0, 0.1, 24_000 * 10).astype(np.float32)
    reference = Reference(of_call("reference", noise, 24_000), "text")
    terms = Terms("Jane Doe", "Acme", ("support",), ("en",), date(date.today().year + 1, 1, 1))
    keys = {name: OperatorKey.make(name) for name in ("alice", "bob")}
    for name, role in (("alice", "registrar"), ("bob", "reviewer")):
        OperatorDesk(office.books).add(name, role, keys[name].public, None)

    def act(who: str, what: str, **about: object) -> str:
        return keys[who].act(what, office.clock(), office.identity, **about)

    asked = act("alice", "challenge", terms=terms.hash("salt"), by_phone=False)
    challenge = office.registrar.challenge(terms, asked, salt="salt")
    submission = Submission(handle, (reference,), reference.recording, challenge.challenge_id, adult=True)
    outcome = Outcome(fingerprints=[np.zeros(0, np.uint32)] * 2)
    now, registered = office.clock(), act("alice", "register", **submission.digest)
    claims = draft(
        voice_id=handle, handle=handle, challenge=challenge, references=[reference],
        statement=reference.recording, findings=[], registrar="alice", act=registered, pin=False, now=now,
    )  # fmt: skip
    made = Draft(submission, challenge, outcome, "alice", registered, now, claims)
    office.registrar.keep(made, act("alice", "confirm", **made.found))
    office.reviews.listen(handle, act("bob", "listen", voice_id=handle))
    record_hash = office.look().voices[handle].record_hash
    decided = act("bob", "review", voice_id=handle, record_hash=record_hash, decision="approve")
    office.reviews.review(handle, decided)
    return str(claims["voice_hash"])


def fill(office: ConsentOffice, rows: int) -> None:
    """Grants and usage as calls leave them, signed one by one, written in bulk."""
    seq, prev, at_ms = office.books.tip
    made: list[dict[str, object]] = []
    with office.archive.writing() as connection:
        for number in range(rows - seq):
            body = {
                "jti": f"{number:032x}", "call": f"{number:016x}", "purpose": "support", "dialplan": "demo",
                "language": "en", "record_hash": "0" * 64, "voice_hash": "0" * 64, "exp": 2e9,
            }  # fmt: skip
            row = Row.make(seq + 1 + number, at_ms, "voice.granted", "jane", body, prev, office.keys.signer)
            prev = row.hash
            made.append(row.to_json())
            if len(made) == 10_000:
                connection.execute(insert(LEDGER), made)
                made = []
        if made:
            connection.execute(insert(LEDGER), made)


def timed(count: int, work: Callable[[int], object]) -> dict[str, float]:
    """Wall and CPU in milliseconds."""
    walls, cpus = [], []
    for number in range(count):
        wall, cpu = time.perf_counter(), time.process_time()
        work(number)
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    p50, p95 = (round(float(at), 2) for at in np.quantile(walls, [0.5, 0.95]))
    return {"p50_ms": p50, "p95_ms": p95, "cpu_ms": round(float(np.mean(cpus)), 2)}


def over_the_socket(place: OfficePlace, grants: int, scope: dict[str, str]) -> dict[str, object]:
    """The same, asked of an office in a process of its own, as the front asks it."""
    report: dict[str, object] = {}
    started = time.perf_counter()
    with office_of(place.consent_dir / "office.sock", place) as client:
        office = FrontOffice(client, place.consent_dir / "grant-keys.json")
        office.usable()
        report["office's start s"] = round(time.perf_counter() - started, 2)
        asked = Scope(voice="jane", call_id="c", **scope)
        report["grant, asked"] = timed(grants, lambda n: office.grant(replace(asked, call_id=f"s{n}")))
        granted = office.grant(asked)
        report["renewal, asked"] = timed(grants, lambda _: office.renew(granted))
        report["reference, asked"] = timed(20, lambda _: office.reference(granted.token, granted.voice_hash))
        report["office's memory MB"] = memory_mb(client)
    return report


def memory_mb(client: OfficeClient) -> float:
    """What the process at the other end keeps for itself (Pss; its share of what others have too)."""
    number = client.ask(AskFacts()).process
    lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024, 1)


@click.command()
@click.option("--rows", default=100_000)
@click.option("--grants", default=1_000)
@click.option("--sql", help="Default: SQLite in a temporary directory.")
@click.option("--json", "as_json", is_flag=True)
def main(rows: int, grants: int, sql: str | None, as_json: bool) -> None:
    """Measures."""
    report: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        url = sql or f"sqlite:///{folder}/voicegate.db"
        office = ConsentOffice.open(url, Path(folder) / "consent")
        make_voice(office, "jane")
        scope = {"purpose": "support", "dialplan": "demo", "language": "en"}
        fill(office, rows)
        started = time.perf_counter()
        office.books.look()
        report["catching up with all rows s"] = round(time.perf_counter() - started, 2)
        report["grant"] = timed(grants, lambda n: office.grant(Scope(voice="jane", call_id=f"c{n}", **scope)))
        granted = office.grant(Scope(voice="jane", call_id="c", **scope))
        report["renewal"] = timed(grants, lambda _: office.renew(granted))
        report["reference"] = timed(20, lambda _: office.reference(granted.token, granted.voice_hash))
        stock = {**scope, "voice": "heart"}
        report |= over_the_socket(OfficePlace(url, Path(folder) / "consent", *ABSENT), grants, scope)
        report["stock grant"] = timed(grants, lambda n: office.grant(Scope(call_id=f"c{n}", **stock)))
        started = time.perf_counter()
        proof = office.books.prove()
        report["verified rows"], report["verify s"] = proof.rows, round(time.perf_counter() - started, 2)
        assert proof.ok
        office.close()
        started = time.perf_counter()
        ConsentOffice.open(url, Path(folder) / "consent").close()
        report["start s"] = round(time.perf_counter() - started, 3)
    if as_json:
        click.echo(json.dumps(report))
        return
    for name, value in report.items():
        click.echo(f"{name:<28} {value}")


if __name__ == "__main__":
    main()
