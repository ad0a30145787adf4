"""`voicegate trace`: what a recording is: its mark, the call, the voice, and the consent behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from consent.office.office import ConsentOffice
from consent.proof.evidence import Evidence, gather, page
from gateway.config.paths import consent_dir, mark_keys_path
from gateway.config.settings import Settings, load
from gateway.store.registry import PAYLOAD_BITS, CallRow, Registry
from watermark.detect import Detection, detect_recording
from watermark.keys import KeyRing
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
    found, call = _find(settings, clip, speeds)
    if not found.detected:
        click.echo(json.dumps({"ours": False}) if as_json else f"{clip}: no mark of this gateway was found")
        raise SystemExit(1)
    evidence = _evidence(settings, found, call)
    if html is not None:
        html.write_text(page(evidence))
    if as_json:
        table = {"ours": True, "mark": found.as_json(), "evidence": evidence.to_json()}
        click.echo(json.dumps(table | {"call": call.to_json() if call else None}))
    else:
        click.echo(describe(clip, evidence))


def _find(settings: Settings, clip: Path, speeds: bool) -> tuple[Detection, CallRow | None]:
    """The mark and its call.

    The recording alone says them, or else the registry's newest calls are tried on it.
    """
    recording, keys = read(clip), KeyRing.load(mark_keys_path(settings))
    registry = Registry.open(settings.sql)
    try:
        found = detect_recording(recording, keys, speeds=speeds)
        call = _call_of(registry, found)
        newest = registry.newest(ASKED) if call is None else []
        if newest:
            among = detect_recording(recording, keys, payloads=newest, speeds=speeds)
            if among.detected:
                return among, _call_of(registry, among)
        return found, call
    finally:
        registry.close()


def _call_of(registry: Registry, found: Detection) -> CallRow | None:
    if found.payload is None:
        return None
    call = registry.by_payload(found.payload & ((1 << PAYLOAD_BITS) - 1))
    return call if call is not None and call.payload_whole == found.payload else None


def _evidence(settings: Settings, found: Detection, call: CallRow | None) -> Evidence:
    office = ConsentOffice.open(settings.sql, consent_dir(settings))
    try:
        facts: dict[str, Any] | None = call.to_json() if call is not None else None
        mark = replace(found, scores=()).as_json()
        return gather(office, facts, {key: mark[key] for key in ("key", "payload", "p_value")})
    finally:
        office.close()


def describe(clip: Path, evidence: Evidence) -> str:
    """The chain as an operator reads it."""
    lines = [f"{clip}: ours" + ("" if evidence.unbroken else ", but the chain is broken")]
    for link in evidence.links:
        sign = {True: "ok", False: "NO", None: "??"}[link.holds]
        lines.append(f"{sign:>4}  {link.title}: {link.says}")
        lines += [f"        {key:12} {value}" for key, value in link.facts.items()]
    return "\n".join(lines)
