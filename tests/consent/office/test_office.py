"""Grants: what is asked for is what was consented to, by this person, now, for this call; or the reason."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from consent.archive.keys import OfficeKeys, SigningKey
from consent.errors import GrantRefused, LedgerError
from consent.grants.grant import REASONS, GrantVerifier, VoiceGrant, hash_voice, sign
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from consent.office.record import Reference
from consent.office.usage import total, uses
from consent.office.withdrawal import Withdrawals
from tests.consent.conftest import Desk, both_databases, prompt


def refused(desk: Desk, **given: str) -> str:
    with pytest.raises(GrantRefused) as caught:
        desk.grant(**given)
    assert caught.value.reason in REASONS
    return caught.value.reason


def grant(desk: Desk, **given: str) -> VoiceGrant:
    granted = desk.grant(**given)
    assert isinstance(granted, VoiceGrant)
    return granted


@both_databases
def test_a_grant_names_the_call_the_scope_and_the_voice(desk: Desk) -> None:
    desk.jane()
    granted = grant(desk)
    assert (granted.voice, granted.call_id, granted.scope.purpose) == ("jane", "c1", "support")
    assert granted.expires_at == desk.clock.now + 60
    assert desk.kinds()[-1] == "voice.granted"
    verifier = GrantVerifier.load(desk.office.public_keys_path)
    assert verifier.verify(granted.token, call_id="c1", now=desk.clock.now).jti == granted.jti


@both_databases
@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"voice": "nobody"}, "unknown"),
        ({"purpose": "advertising"}, "purpose"),
        ({"dialplan": "night"}, "dialplan"),
        ({"language": "de"}, "language"),
    ],
)
def test_what_was_not_consented_to_is_refused(desk: Desk, asked: dict[str, str], reason: str) -> None:
    desk.jane(challenge=desk.challenge(replace(Desk.TERMS, dialplans=("demo",))))
    assert refused(desk, **asked) == reason
    grant(desk)


def test_a_consent_ends_with_its_last_day(desk: Desk) -> None:
    desk.jane()
    desk.clock.now = 1_814_399_999.0  # 2027-06-30 23:59:59 UTC
    granted = grant(desk)
    assert granted.expires_at == 1_814_400_000.0, "and a running call's grant with it"
    desk.clock.now += 1
    assert refused(desk) == "expired"
    with pytest.raises(GrantRefused) as caught:
        desk.office.renew(granted)
    assert caught.value.reason == "expired"


def test_a_clock_that_was_turned_back_gets_no_grant(desk: Desk) -> None:
    desk.jane()
    desk.clock.now -= 3600
    assert refused(desk) == "clock"
    desk.clock.now += 3600 - 3
    grant(desk)  # three seconds are two hosts' difference


@both_databases
def test_a_revoked_and_an_erased_voice_are_refused_everywhere(desk: Desk) -> None:
    done = desk.jane()
    granted = grant(desk)
    other = desk.open_again()
    act = desk.act("alice", "revoke", voice_id=done.voice_id)
    Withdrawals(desk.office.books, desk.office.vault).revoke("jane", "asked", act)
    for office in (desk.office, other):
        for attempt in (
            lambda o: o.grant(Scope("jane", "support", "d", "en", "c")),
            lambda o: o.renew(granted),
            lambda o: o.reference(granted.token, granted.voice_hash),
        ):
            with pytest.raises(GrantRefused) as caught:
                attempt(office)
            assert caught.value.reason == "revoked"
    act = desk.act("alice", "erase", voice_id=done.voice_id)
    Withdrawals(desk.office.books, desk.office.vault).erase("jane", "asked", act)
    assert refused(desk) == "erased"
    other.close()


def test_a_name_can_be_registered_anew_after_a_revocation(desk: Desk) -> None:
    done = desk.jane()
    act = desk.act("alice", "revoke", voice_id=done.voice_id)
    Withdrawals(desk.office.books, desk.office.vault).revoke("jane", "asked", act)
    old = desk.office.standing_of("jane")
    assert old is not None
    desk.clock.now += 1
    desk.jane(statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "t"),))
    granted = grant(desk)
    assert granted.voice_hash != old.voice_hash


def test_the_stock_voice_needs_no_person_and_no_ledger(desk: Desk, sql_url: str) -> None:
    desk.office.books.save_checkpoint()
    with desk.office.archive.writing() as connection:
        connection.execute(text("DELETE FROM consent_ledger WHERE seq > 2"))
    broken = desk.open_again()
    granted = broken.grant(Scope("heart", "x", "y", "zz", "c"))
    assert broken.reference(granted.token, granted.voice_hash).stock
    assert broken.renew(granted).jti == granted.jti
    assert [voice.name for voice in broken.voices()] == ["heart"]
    with pytest.raises(GrantRefused) as caught:
        broken.grant(Scope("jane", "support", "d", "en", "c"))
    assert caught.value.reason == "ledger"
    with pytest.raises(LedgerError):
        broken.look()
    broken.close()


# ── the engine's side ────────────────────────────────────────────────────────────────────────────────────


@both_databases
def test_an_engine_gets_the_reference_against_the_grant(desk: Desk) -> None:
    desk.jane()
    granted = grant(desk)
    found = desk.office.reference(granted.token, granted.voice_hash)
    assert found.pcm is not None
    assert found.pcm.dtype == np.float32
    assert found.text == "Congratulations!"
    assert hash_voice(found.pcm.tobytes(), found.text) == granted.voice_hash
    assert np.abs(found.pcm - prompt("demo-congrats").pcm).max() < 1e-4


def test_several_references_are_joined(desk: Desk) -> None:
    pieces = [prompt("demo-congrats").pcm[: 24_000 * 6], prompt("vm-options").pcm[: 24_000 * 6]]
    from consent.checks.sound import of_call

    references = tuple(Reference(of_call(f"r{k}", pcm, 8_000), f"Text {k}.") for k, pcm in enumerate(pieces))
    desk.jane(references=references)
    granted = grant(desk)
    found = desk.office.reference(granted.token, granted.voice_hash)
    assert found.pcm is not None
    assert len(found.pcm) == sum(map(len, pieces)) + 9_600
    assert found.text == "Text 0. Text 1."


def test_a_reference_is_for_its_own_grant_only(desk: Desk) -> None:
    desk.jane()
    granted = grant(desk)
    stock = desk.office.grant(Scope("heart", "p", "d", "en", "c"))
    with pytest.raises(GrantRefused) as caught:
        desk.office.reference(stock.token, granted.voice_hash)
    assert caught.value.reason == "other_call"
    desk.clock.now += 66
    with pytest.raises(GrantRefused) as caught:
        desk.office.reference(granted.token, granted.voice_hash)
    assert caught.value.reason == "expired"


def test_a_swapped_reference_is_refused(desk: Desk) -> None:
    """Somebody with the database puts another voice's sealed sound into its place."""
    jane = desk.jane()
    joe = desk.submit(
        handle="joe", statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "t"),)
    )
    granted = grant(desk)
    with desk.office.archive.writing() as connection:
        sealed = connection.execute(
            text("SELECT sealed FROM consent_items WHERE voice_id = :v AND kind = 'reference'"),
            {"v": joe.voice_id},
        ).scalar()
        connection.execute(
            text("UPDATE consent_items SET sealed = :s WHERE voice_id = :v AND kind = 'reference'"),
            {"s": sealed, "v": jane.voice_id},
        )
    with pytest.raises(GrantRefused, match="tampered"):
        desk.office.reference(granted.token, granted.voice_hash)


def test_a_name_pointed_at_another_voice_is_refused(desk: Desk) -> None:
    jane = desk.jane()
    joe = desk.jane(
        handle="joe", statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "t"),)
    )
    with desk.office.archive.writing() as connection:
        swap = "UPDATE consent_voices SET handle = :h WHERE voice_id = :v"
        connection.execute(text(swap), {"h": "old", "v": jane.voice_id})
        connection.execute(text(swap), {"h": "jane", "v": joe.voice_id})
    assert refused(desk) == "tampered"


def test_a_voice_that_is_only_in_a_table_is_unknown(desk: Desk) -> None:
    with desk.office.archive.writing() as connection:
        desk.office.vault.open_voice(connection, "feed", "mallory", desk.clock.now)
    assert refused(desk, voice="mallory") == "unknown"


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────


SIGNER = SigningKey.make()
VERIFIER = GrantVerifier({SIGNER.kid: SIGNER.private.public_key()})
CLAIMS = {
    "jti": "j", "sub": "jane", "vh": "h", "pur": "p", "dp": "d", "lang": "en", "call": "c",
    "iat": 1000.0, "exp": 1060.0,
}  # fmt: skip
TOKEN = sign(CLAIMS, SIGNER.private, SIGNER.kid)


def reason_of(act: Callable[[], object]) -> str:
    with pytest.raises(GrantRefused) as caught:
        act()
    return caught.value.reason


@settings(max_examples=150)
@given(st.integers(0, len(TOKEN) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_token_with_any_letter_changed_is_refused(at: int, letter: str) -> None:
    changed = TOKEN[:at] + letter + TOKEN[at + 1 :]
    same = _decoded(changed) == _decoded(TOKEN)  # base64's last letters may differ and mean the same
    if changed != TOKEN and not same:
        assert reason_of(lambda: VERIFIER.verify(changed, now=1000)) in {"tampered", "unknown_key"}


def _decoded(token: str) -> list[bytes] | None:
    try:
        head, body, signature = token.split(".")
        if (head, body) != tuple(TOKEN.split(".")[:2]):
            return None
        return [base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))]
    except ValueError:
        return None


@settings(max_examples=100)
@given(st.text(max_size=200))
def test_no_text_of_chance_is_a_grant(text_: str) -> None:
    assert reason_of(lambda: VERIFIER.verify(text_)) == "tampered"


@settings(max_examples=60)
@given(st.floats(0, 3000))
def test_a_grant_holds_from_its_issue_to_its_end_give_or_take_the_clocks(now: float) -> None:
    if 995 <= now <= 1065:
        assert VERIFIER.verify(TOKEN, now=now).voice == "jane"
    else:
        assert reason_of(lambda: VERIFIER.verify(TOKEN, now=now)) in {"expired", "not_yet_valid"}


@settings(max_examples=40)
@given(st.sampled_from(sorted(CLAIMS)))
def test_a_grant_without_a_claim_is_none(claim: str) -> None:
    token = sign({k: v for k, v in CLAIMS.items() if k != claim}, SIGNER.private, SIGNER.kid)
    assert reason_of(lambda: VERIFIER.verify(token, now=1000)) == "tampered"


def test_a_grant_for_another_call_is_refused() -> None:
    assert reason_of(lambda: VERIFIER.verify(TOKEN, call_id="other", now=1000)) == "other_call"


def test_a_forged_grant_and_another_kind_of_token_are_refused() -> None:
    stranger = SigningKey.make()
    assert reason_of(lambda: VERIFIER.verify(sign(CLAIMS, stranger.private, stranger.kid))) == "unknown_key"
    assert reason_of(lambda: VERIFIER.verify(sign(CLAIMS, stranger.private, SIGNER.kid))) == "tampered"
    other = sign(CLAIMS, SIGNER.private, SIGNER.kid, "voice-revocation+jws")
    assert reason_of(lambda: VERIFIER.verify(other)) == "tampered"
    _, body, _ = TOKEN.split(".")
    none = base64.urlsafe_b64encode(
        json.dumps({"alg": "none", "typ": "voice-grant+jws", "kid": SIGNER.kid}).encode()
    )
    assert reason_of(lambda: VERIFIER.verify(f"{none.decode().rstrip('=')}.{body}.")) == "tampered"


def test_nobody_but_consent_makes_a_grant() -> None:
    with pytest.raises(TypeError, match="made by consent only"):
        VoiceGrant("t", "j", Scope("jane", "p", "d", "en", "c"), "h", 0.0, 9e9)


def test_a_verifier_learns_of_a_new_key_from_the_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consent.grants.grant.REREAD_S", 0.0)
    desk.jane()
    verifier = GrantVerifier.load(desk.office.public_keys_path)
    old = grant(desk)
    desk.rotate("signing")
    new = grant(desk)
    for granted in (old, new):
        assert verifier.verify(granted.token, now=desk.clock.now).jti == granted.jti


# ── renewals, restarts, usage ────────────────────────────────────────────────────────────────────────────


def test_a_renewal_is_the_same_grant_later_and_no_new_row(desk: Desk) -> None:
    desk.jane()
    granted = grant(desk)
    rows = len(desk.kinds())
    desk.clock.now += 30
    renewed = desk.office.renew(granted)
    assert (renewed.jti, renewed.call_id) == (granted.jti, granted.call_id)
    assert renewed.expires_at == granted.expires_at + 30
    assert len(desk.kinds()) == rows


@both_databases
def test_a_front_that_restarts_takes_up_the_grants_of_running_calls(desk: Desk) -> None:
    desk.jane()
    granted = grant(desk)
    again = desk.open_again()
    held = again.verifier.verify(granted.token, call_id="c1", now=desk.clock.now)  # the hall has it still
    assert again.renew(held).jti == granted.jti
    with pytest.raises(GrantRefused) as caught:
        again.verifier.verify(granted.token, call_id="c2", now=desk.clock.now)
    assert caught.value.reason == "other_call"
    again.record_usage(jti=granted.jti, call_id="c1", seconds=4.5, dialplan="demo")
    (use,) = uses(desk.office.books, desk.office.standing_of("jane").voice_id)  # type: ignore[union-attr]
    assert use.seconds == 4.5
    again.close()


def test_usage_is_summed_by_dialplan(desk: Desk) -> None:
    done = desk.jane()
    for call, (plan, seconds) in enumerate([("demo", 3.0), ("demo", 4.0), ("night", 5.0)]):
        granted = grant(desk, call_id=f"c{call}", dialplan=plan)
        desk.office.record_usage(jti=granted.jti, call_id=f"c{call}", seconds=seconds, dialplan=plan)
    grant(desk, call_id="running")
    found = uses(desk.office.books, done.voice_id)
    assert [use.seconds for use in found] == [3.0, 4.0, 5.0, None]
    assert total(found).by_dialplan == {"demo": (3, 7.0), "night": (1, 5.0)}
    assert uses(desk.office.books, done.voice_id, since=desk.clock.now + 1) == []


def test_usage_of_the_stock_voice_is_not_noted(desk: Desk) -> None:
    stock = desk.office.grant(Scope("heart", "p", "d", "en", "c"))
    before = desk.kinds()
    for _ in range(2):
        desk.office.record_usage(jti=stock.jti, call_id="c", seconds=1.0, dialplan="d")
    assert desk.kinds() == before


def test_nothing_stays_of_a_grant_whose_use_was_told(desk: Desk) -> None:
    desk.jane()
    for granted in (grant(desk), desk.office.grant(Scope("heart", "p", "d", "en", "c1"))):
        assert granted.jti in desk.office.usage._voice_of
        desk.office.record_usage(jti=granted.jti, call_id="c1", seconds=1.0, dialplan="d")
        assert granted.jti not in desk.office.usage._voice_of


@both_databases
def test_many_threads_get_their_grants(desk: Desk) -> None:
    desk.jane()
    found: list[str] = []

    def ask(thread: int) -> None:
        for call in range(5):
            found.append(grant(desk, call_id=f"c{thread}-{call}").jti)

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20
    assert desk.office.books.prove().ok


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_file_is_its_owners_only(desk: Desk, tmp_path: Path) -> None:
    desk.jane()
    for path in (tmp_path / "data").rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    from consent.errors import VaultError

    OfficeKeys.open(tmp_path)
    (tmp_path / "office-keys.json").chmod(0o644)
    with pytest.raises(VaultError, match="chmod 600"):
        OfficeKeys.open(tmp_path)


def test_an_older_installations_grant_key_is_taken_over(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    raw = SIGNER.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    (tmp_path / "grant-key").write_bytes(raw)
    assert OfficeKeys.open(tmp_path).signer.kid == SIGNER.kid
    assert not (tmp_path / "grant-key").exists()


def test_a_database_without_its_keys_grants_nothing(desk: Desk, tmp_path: Path, sql_url: str) -> None:
    """A thief of the database: it opens under keys of their own, and not one voice with it."""
    desk.jane()
    stolen = ConsentOffice.open(sql_url, tmp_path / "thief")
    assert [voice.name for voice in stolen.voices()] == ["heart"]
    with pytest.raises(GrantRefused) as caught:
        stolen.grant(Scope("jane", "support", "d", "en", "c"))
    assert caught.value.reason == "ledger"
    stolen.close()


def test_secrets_do_not_print(desk: Desk) -> None:
    keys = desk.office.keys
    for secret in (keys.master, keys.signer):
        assert repr(secret) in (f"MasterKey({keys.master.kid})", f"SigningKey({keys.signer.kid})")
