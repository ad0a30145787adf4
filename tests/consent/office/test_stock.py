"""The stock voice's clip: the one that the gateway rendered, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from consent.checks.sound import wav_bytes
from consent.errors import GrantRefused
from consent.grants.grant import VoiceGrant, hash_voice
from consent.grants.scope import Scope
from consent.office.stock import UNHEARD_HASH
from tests.consent.conftest import Desk, both_databases, prompt
from tests.consent.proof.gathered import evidence_by

WORDS = "The words of the clip."


def rendered() -> np.ndarray:
    """Stands for what the embedded engine renders: two seconds of a tone."""
    return np.sin(np.arange(48_000) * 0.05).astype(np.float32) * 0.4


def granted(desk: Desk) -> VoiceGrant:
    return desk.office.grant(Scope("heart", "support", "demo", "en", "c1"))


@both_databases
def test_the_grant_names_the_clip_by_its_hash(desk: Desk) -> None:
    assert not desk.office.stock.has_clip
    assert granted(desk).voice_hash == UNHEARD_HASH
    desk.office.stock.keep_clip(rendered(), WORDS)
    for office in (desk.office, desk.open_again()):
        assert office.stock.has_clip
        grant = office.grant(Scope("heart", "support", "demo", "en", "c1"))
        reference = office.reference(grant.token, grant.voice_hash)
        assert reference.pcm is not None
        assert hash_voice(reference.pcm.tobytes(), reference.text) == grant.voice_hash == reference.voice_hash
        assert np.abs(reference.pcm - rendered()).max() < 1e-4


def test_another_clip_put_into_the_data_directory_is_not_served(desk: Desk, tmp_path: Path) -> None:
    """The attack: a human's clip as heart.wav was served for every grant of the stock voice."""
    folder = tmp_path / "data" / "consent"
    (folder / "heart.wav").write_bytes(wav_bytes(prompt("demo-congrats").pcm))
    (folder / "heart.txt").write_text("Congratulations!")
    assert desk.office.reference((grant := granted(desk)).token, grant.voice_hash).pcm is None
    desk.office.stock.keep_clip(rendered(), WORDS)
    grant = granted(desk)
    assert desk.office.reference(grant.token, grant.voice_hash).text == WORDS


@pytest.mark.parametrize("kind", ["stock sound", "stock record"])
def test_a_clip_that_was_swapped_in_the_database_is_refused_and_rendered_anew(desk: Desk, kind: str) -> None:
    desk.office.stock.keep_clip(rendered(), WORDS)
    grant = granted(desk)
    with desk.office.archive.writing() as connection:
        other = connection.execute(text("SELECT sealed FROM consent_items WHERE kind != :k"), {"k": kind})
        connection.execute(
            text("UPDATE consent_items SET sealed = :s WHERE kind = :k"), {"s": other.scalar(), "k": kind}
        )
    with pytest.raises(GrantRefused) as caught:
        desk.office.reference(grant.token, grant.voice_hash)
    assert caught.value.reason == "tampered"
    again = desk.open_again()  # the house starts all the same
    assert not again.stock.has_clip
    again.stock.keep_clip(rendered(), WORDS)
    assert again.stock.has_clip
    again.close()


def test_a_clip_that_is_kept_is_not_replaced(desk: Desk) -> None:
    desk.office.stock.keep_clip(rendered(), WORDS)
    first = granted(desk).voice_hash
    desk.office.stock.keep_clip(-rendered(), "Other words.")
    assert granted(desk).voice_hash == first


def test_a_grant_from_before_the_clip_opens_no_clip(desk: Desk) -> None:
    old = granted(desk)
    desk.office.stock.keep_clip(rendered(), WORDS)
    with pytest.raises(GrantRefused) as caught:
        desk.office.reference(old.token, old.voice_hash)
    assert caught.value.reason == "tampered"


def test_calls_from_before_and_after_the_clip_have_their_evidence(desk: Desk) -> None:
    before = granted(desk).voice_hash
    desk.office.stock.keep_clip(rendered(), WORDS)
    for voice_hash, holds in ((before, True), (granted(desk).voice_hash, True), ("0" * 64, False)):
        call = {"call_id": "c1", "voice": "heart", "voice_hash": voice_hash, "grant_jti": "j"}
        assert evidence_by(desk.office, call).links[-1].holds is holds
