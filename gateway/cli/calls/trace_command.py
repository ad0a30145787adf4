"""`voicegate trace`: what a recording is: its mark, the call, the voice, and the consent behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from consent.proof.evidence import Evidence, fits_payload, page
from consent.service.asked_ledger import evidence_of
from gateway.cli.calls.call_stores import registry_table
from gateway.cli.house.office_command import asked_office
from gateway.config.paths import mark_keys_path
from gateway.config.settings import Settings, load
from gateway.store.call_leaves import CallLeaves
from gateway.store.registry import PAYLOAD_BITS, CallRow, Registry
from watermark.detect import Detection, detect_recording
from watermark.keys import KeyRing
from watermark.payload import call_payload
from watermark.sound import read

ASKED: Final = 100_000
"""Calls, the newest, among which a recording's is sought that it does not name itself."""


@click.command()
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="write the evidence page here, for printing")
@click.option("--json", "as_json", is_flag=True, help="all of it as JSON")
@click.option("--speeds", is_flag=True, help="also look for sound played up to 1 % too fast or too slow")
def trace(clip: Path, html: Path | None, as_json: bool, speeds: bool) -> None:
    """Find the call that a recording's watermark names, and the consent behind its voice.

    Ends with 0 when it is ours, 1 when no mark of ours is in it.
    """
    settings = load()
    keys = KeyRing.load(mark_keys_path(settings))
    found, named = _find(settings, clip, keys, speeds)
    if not found.detected:
        click.echo(json.dumps({"ours": False}) if as_json else f"{clip}: no mark of this gateway was found")
        raise SystemExit(1)
    facts, evidence = _evidence(settings, found, keys, named)
    if html is not None:
        html.write_text(page(evidence))
    if as_json:
        table = {"ours": True, "mark": found.as_json(), "evidence": evidence.to_json()}
        click.echo(json.dumps(table | {"call": facts}))
    else:
        click.echo(describe(clip, evidence))


@dataclass(frozen=True, slots=True)
class Named:
    """The call that a mark names. `misnamed`: another one, to which the registry's payload leads instead."""

    call: CallRow | None = None
    misnamed: str | None = None


def _find(settings: Settings, clip: Path, keys: KeyRing, speeds: bool) -> tuple[Detection, Named]:
    """The mark and its call.

    The recording alone says them, or else the registry's newest calls are tried on it.
    """
    recording = read(clip)
    registry = Registry.open(settings.sql)
    try:
        found = detect_recording(recording, keys, speeds=speeds)
        named = _call_of(registry, keys, found)
        newest = registry.newest(ASKED) if named == Named() else []
        if newest:
            payloads = [payload for call_id, gateway in newest for payload in _made(keys, call_id, gateway)]
            among = detect_recording(recording, keys, payloads=payloads, speeds=speeds)
            if among.detected:
                return among, _call_of(registry, keys, among)
        return found, named
    finally:
        registry.close()


def _made(keys: KeyRing, call_id: str, gateway: str) -> list[int]:
    """The payloads of a call: by the key that its row names, or by each, when the row names none of them."""
    chosen = [key for key in keys.keys if key.id == gateway] or keys.keys
    return [call_payload(key, call_id) for key in chosen]


def _call_of(registry: Registry, keys: KeyRing, found: Detection) -> Named:
    """By the registry's payload, when the keys make it for that call; else by computing every call's."""
    if found.payload is None:
        return Named()
    row = registry.by_payload(found.payload & ((1 << PAYLOAD_BITS) - 1))
    if row is not None and row.payload_whole == found.payload and fits_payload(row.to_json(), keys.keys):
        return Named(row)
    misnamed = None if row is None or row.payload_whole != found.payload else row.call_id
    for call_id, _ in registry.newest():
        if any(call_payload(key, call_id) == found.payload for key in keys.keys):
            return Named(registry.get(call_id), None if misnamed == call_id else misnamed)
    return Named(misnamed=misnamed)


def _evidence(
    settings: Settings, found: Detection, keys: KeyRing, named: Named
) -> tuple[dict[str, Any] | None, Evidence]:
    """The call's facts, and the chain."""
    registry = Registry.open(settings.sql)
    try:
        facts = registry_table(registry, named.call)
        mark = replace(found, scores=()).as_json()
        said = {key: mark[key] for key in ("key", "payload", "p_value")}
        with asked_office(settings) as office:
            chain = evidence_of(
                office, facts, said, keys=keys.keys, calls=CallLeaves(registry), misnamed=named.misnamed
            )  # fmt: skip
        return facts, chain
    finally:
        registry.close()


def describe(clip: Path, evidence: Evidence) -> str:
    """The chain as an operator reads it."""
    lines = [f"{clip}: ours" + ("" if evidence.unbroken else ", but the chain is broken")]
    for link in evidence.links:
        sign = {True: "ok", False: "NO", None: "??"}[link.holds]
        lines.append(f"{sign:>4}  {link.title}: {link.says}")
        lines += [f"        {key:12} {value}" for key, value in link.facts.items()]
    return "\n".join(lines)
