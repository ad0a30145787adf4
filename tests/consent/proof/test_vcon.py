"""Consent as a vCon: other programs read it, and it proves what a bundle proves."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from consent.errors import ConsentError, LedgerError
from consent.grants.grant import VoiceGrant, read_public_keys, unb64
from consent.office.withdrawal import Withdrawals
from consent.proof import bundle, vcon
from consent.service.asked_ledger import evidence_of, vcon_of_call
from consent.service.office_client import OfficeClient
from consent.service.office_rooms import OfficePlace
from tests.consent.conftest import Desk
from tests.consent.service.served import serving

DIALOG_TYPES: Final = ("recording", "text", "transfer", "incomplete", "recording-set")


def check_container(made: dict[str, Any]) -> None:
    """What draft-ietf-vcon-vcon-core says with MUST, of what stands in ours."""
    assert set(made) <= {
        "vcon", "uuid", "created_at", "subject", "redacted", "parties", "dialog", "attachments",
    }  # fmt: skip
    assert made["vcon"] == "0.4.0"
    assert (uuid.UUID(made["uuid"]).version, uuid.UUID(made["uuid"]).variant) == (8, uuid.RFC_4122)
    for each in (made, *made["dialog"], *made["attachments"]):
        assert datetime.fromisoformat(each["start" if each is not made else "created_at"]).tzinfo
    for dialog in made["dialog"]:
        assert dialog["type"] in DIALOG_TYPES
        assert all(0 <= party < len(made["parties"]) for party in dialog["parties"])
        assert "body" in dialog or made["redacted"]["type"]
    for file in (*made["dialog"], *made["attachments"]):
        if "body" in file:
            assert file["mediatype"]
            assert file["encoding"] in ("base64url", "json", "none")
            assert isinstance(file["body"], str) or file["encoding"] == "json"
            if file["encoding"] == "base64url":
                assert "=" not in file["body"]
    for attachment in made["attachments"]:
        assert 0 <= attachment["party"] < len(made["parties"])
        assert 0 <= attachment["dialog"] < len(made["dialog"])
        assert attachment["purpose"]


def of_jane(desk: Desk, *, sound: bool = False) -> dict[str, Any]:
    sounds = desk.listen("carol") if sound else None
    voice = desk.office.standing_of("jane")
    assert voice is not None
    made = vcon.of_voice(bundle.export(desk.office, voice, sounds))
    return dict(json.loads(vcon.dump(made)))


def prove(desk: Desk, made: dict[str, Any]) -> vcon.Proved:
    path = desk.office.public_keys_path
    return vcon.prove(made, read_public_keys(path), read_public_keys(path, revoked=True))


@pytest.mark.parametrize("sound", [False, True])
def test_a_voices_vcon_proves_what_its_bundle_proves(desk: Desk, sound: bool) -> None:
    desk.jane()
    made = of_jane(desk, sound=sound)
    check_container(made)
    (found,) = prove(desk, made).voices
    assert (found.record.handle, found.state, found.reviews) == ("jane", "active", ("bob: approve",))
    assert [party["name"] for party in made["parties"]] == ["Jane Doe", "Acme"]
    (said,) = made["dialog"]
    names = [file["filename"] for file in made["attachments"]]
    if sound:
        assert (said["type"], said["mediatype"]) == ("recording", "audio/x-wav")
        assert unb64(said["body"])[:4] == b"RIFF"
        assert "jane/reference.wav" in names
    else:
        assert (said["type"], said["body"]) == ("text", found.record.claims["statement"]["text"])
        assert not any(name.endswith(".wav") for name in names)


def _of(made: dict[str, Any], name: str) -> dict[str, Any]:
    files = (*made["dialog"], *made["attachments"])
    return next(file for file in files if file.get("filename") == f"jane/{name}")


def _spoil_token(made: dict[str, Any], name: str) -> None:
    head, body, signature = _of(made, name)["body"].split(".")
    claims = json.loads(unb64(body)) | {"name": "Mary Major", "state": "active"}
    spoilt = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    _of(made, name)["body"] = f"{head}.{spoilt}.{signature}"


def _spoil_sound(made: dict[str, Any]) -> None:
    wav = bytearray(unb64(_of(made, "statement.wav")["body"]))
    wav[500] ^= 1
    _of(made, "statement.wav")["body"] = base64.urlsafe_b64encode(wav).decode().rstrip("=")


SPOILT: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "the record": lambda made: _spoil_token(made, "record.jws"),
    "the status": lambda made: _spoil_token(made, "status.jws"),
    "the head": lambda made: _spoil_token(made, "head.jws"),
    "a row": lambda made: _of(made, "rows.json")["body"][-1].update(kind="voice.listened"),
    "a row is gone": lambda made: _of(made, "rows.json")["body"].pop(),
    "the statement's sound": _spoil_sound,
    "a part is gone": lambda made: made["attachments"].pop(0),
    "no attachment": lambda made: (made["attachments"].clear(), made["dialog"].clear()),
    "no list": lambda made: made.update(attachments=None),
    "no object": lambda made: made.update(attachments=[3]),
    "no base64": lambda made: _of(made, "statement.wav").update(body="é"),
    "no rows": lambda made: _of(made, "rows.json").update(body=[{"seq": 1}]),
}


@pytest.mark.parametrize("what", SPOILT)
def test_whoever_changes_a_vcon_proves_nothing_by_it(desk: Desk, what: str) -> None:
    desk.jane()
    made = of_jane(desk, sound=True)
    prove(desk, made)
    SPOILT[what](made)
    with pytest.raises(ConsentError):
        prove(desk, made)


def test_a_vcon_of_a_stolen_keys_signs_proves_nothing_once_the_key_is_revoked(desk: Desk) -> None:
    desk.jane()
    made = of_jane(desk)
    keys = read_public_keys(desk.office.public_keys_path)
    with pytest.raises(LedgerError):
        vcon.prove(made, {}, keys)


def test_a_calls_vcon_has_its_grants_rows_and_the_bundle_of_each_voice(
    desk: Desk, sql_url: str, tmp_path: Path
) -> None:
    desk.jane()
    granted = desk.grant()
    assert isinstance(granted, VoiceGrant)
    desk.grant(call_id="another")
    desk.office.record_usage(jti=granted.jti, call_id="c1", seconds=3.0, dialplan="demo")
    call = {
        "call_id": "c1", "voice": "jane", "voice_hash": granted.voice_hash, "grant_jti": granted.jti,
        "route": "demo", "caller": "+4930123", "started_at": desk.clock.now, "ended_at": desk.clock.now + 9,
        "grants": [{"jti": granted.jti, "voice": "jane", "route": "demo"}, {"jti": "x", "voice": "nobody"}],
    }  # fmt: skip
    folder = tmp_path / "data" / "consent"
    place = OfficePlace(sql_url, folder, tmp_path / "k", tmp_path / "m")
    with serving(place, folder / "s"), contextlib.closing(OfficeClient(folder / "s")) as office:
        made = json.loads(vcon.dump(vcon_of_call(office, call, evidence_of(office, call))))
        standing = desk.office.standing_of("jane")
        assert standing is not None
        act = desk.act("alice", "erase", voice_id=standing.voice_id)
        Withdrawals(desk.office.books, desk.office.vault).erase("jane", "asked", act)
        later = json.loads(vcon.dump(vcon_of_call(office, call, evidence_of(office, call))))
    check_container(made)
    assert made["parties"][0] == {"tel": "tel:+4930123"}
    assert made["dialog"][0]["duration"] == 9
    proved = prove(desk, made)
    assert [voice.record.handle for voice in proved.voices] == ["jane"]
    assert [(row.kind, row.table["jti"], row.table["call"]) for row in proved.rows] == [
        ("voice.granted", granted.jti, "c1"),
        ("voice.used", granted.jti, "c1"),
    ]
    for change in ({"body": '{"call":"c2"}'}, {"signature": "AAAA"}, {"kid": "nobody's"}):
        spoilt = copy.deepcopy(made)
        next(a for a in spoilt["attachments"] if a["filename"] == "rows.json")["body"][0].update(change)
        with pytest.raises(LedgerError, match="edited, or signed with another key"):
            prove(desk, spoilt)
    spoilt = copy.deepcopy(made)
    other = _of(spoilt, "rows.json")["body"][-1]  # a true row, of another kind
    next(a for a in spoilt["attachments"] if a["filename"] == "rows.json")["body"].append(other)
    with pytest.raises(LedgerError, match="tells of no call"):
        prove(desk, spoilt)

    check_container(later)
    assert prove(desk, later) == vcon.Proved((), proved.rows)
    assert "Jane Doe" not in json.dumps(later)
