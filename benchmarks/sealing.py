"""What sealing the registry of calls costs: each minute, in an idle house, and when it is checked.

python -m benchmarks.sealing [--calls 100000] [--sql URL]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from consent.ledger.call_leaf import call_leaf
from consent.ledger.chain import Row
from consent.office.office import ConsentOffice
from consent.proof.call_seals import SEALED, check_calls, seal_of
from gateway.front.house.registry_seal import RegistrySeal
from gateway.store.call_leaves import CallLeaves
from gateway.store.call_tables import CALLS, LEAVES
from gateway.store.registry import CallRow, Registry

AT_ONCE = 1_000
A_MINUTE = 100


def row(number: int) -> CallRow:
    return CallRow(
        call_id=f"{number:016x}", payload=number, payload_whole=number, gateway="wm-beef", route="demo",
        dialplan="10-demo.toml:9", grant_jti="ab" * 16, voice="heart", voice_hash="ab" * 32,
        caller="sip:bob@192.0.2.1", called="sip:demo@192.0.2.2", source="192.0.2.1", started_at=time.time(),
    )  # fmt: skip


def timed(what: str, work: Callable[[], Any]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    found = work()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{what:<40} {took * 1e3:>9.1f} ms  CPU {cpu * 1e3:>9.1f} ms  {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--sql")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = asked.sql or f"sqlite:///{folder}/calls.db"
        office, registry = ConsentOffice.open(url, Path(folder) / "consent"), Registry.open(url)
        # it seals without the socket between
        seal = RegistrySeal(registry, office)  # type: ignore[arg-type]  # it has what the front's has of it
        leaves = CallLeaves(registry)
        rows = [row(number) for number in range(asked.calls)]
        for first in range(0, asked.calls, AT_ONCE):
            some = [each.to_json() for each in rows[first : first + AT_ONCE]]
            kept = [
                {"call_id": each["call_id"], "stage": "entered", "leaf": call_leaf(each, "entered")}
                for each in some
            ]
            with registry.writing() as connection:
                connection.execute(insert(CALLS), some)
                connection.execute(insert(LEAVES), kept)
        timed(f"{asked.calls} calls sealed", seal.seal_now)

        def sealed() -> list[Row]:
            return office.books.reader.rows(kinds=(SEALED,), proved=True)

        def calls() -> None:
            for each in rows[:A_MINUTE]:
                registry.close_call(each.call_id, "bye")

        timed(f"{A_MINUTE} calls end", calls)
        timed(f"a minute with {A_MINUTE} of them", seal.seal_now)
        timed("an idle minute", seal.seal_now)
        timed("one call's evidence", lambda: seal_of(sealed(), leaves, rows[5].to_json(), time.time()).says)
        timed("the whole registry checked", lambda: check_calls(sealed(), leaves))
        registry.close()
        office.close()


if __name__ == "__main__":
    main()
