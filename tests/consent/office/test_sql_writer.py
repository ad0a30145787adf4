"""Somebody who can write SQL, and holds no key of the office: nothing is misdirected by an edited table."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text

from consent.archive.tables import CHALLENGES, ITEMS, METADATA, VOICES
from consent.errors import (
    ChallengeError,
    ConsentError,
    GrantRefused,
    LedgerError,
    PinRefused,
    RegistrationError,
    VaultError,
)
from consent.ledger.chain import row_hash
from consent.ledger.standing import WRONG_CODES, Standing
from consent.office import pin as pins
from consent.office.blocklist import Blocklist
from consent.office.enrolment import by_code
from consent.office.owner import OwnerDesk
from consent.office.prints import FINGERPRINT_S
from consent.office.record import Reference
from consent.office.registration import VOICEPRINT_S, Registered
from consent.office.usage import uses
from consent.office.withdrawal import Withdrawals
from tests.consent.conftest import Desk, PlannedSpeaker, both_databases, prompt

PIN = "482913"
JOES = "739158"


def joe(desk: Desk, **given: object) -> Registered:
    """Another voice that may be used."""
    return desk.jane(
        handle="joe", statement=prompt("conf-adminmenu"),
        references=(Reference(prompt("vm-options"), "Options."),), pin=JOES, **given,
    )  # fmt: skip


def sql(desk: Desk, statement: str, **given: object) -> None:
    """What the writer does."""
    with desk.office.archive.writing() as connection:
        connection.execute(text(statement), given)


def swap_names(desk: Desk, one: str, other: str) -> None:
    for voice_id, name in ((one, "joe"), (other, "jane")):
        sql(desk, "UPDATE consent_voices SET handle = :n WHERE voice_id = :v", n=name, v=voice_id)


def forget_hashes(desk: Desk) -> None:
    """As if the voices were registered before names were hashed into the ledger."""
    for voice in desk.office.look().voices.values():
        voice.handle_mac = ""


def state(desk: Desk, voice_id: str) -> str:
    return desk.office.look().voices[voice_id].state


def taking_back(desk: Desk, what: str, voice_id: str, name: str = "jane") -> None:
    withdrawals = Withdrawals(desk.office.books, desk.office.vault)
    act = desk.act("alice", what, voice_id=voice_id)
    getattr(withdrawals, what)(name, "asked", act)


@pytest.fixture(params=["hashed", "old"])
def two(desk: Desk, request: pytest.FixtureRequest) -> tuple[Desk, str, str]:
    """Jane and Joe: registered now, or before names were hashed into the ledger."""
    jane, other = desk.jane(pin=PIN), joe(desk)
    if request.param == "old":
        forget_hashes(desk)
    return desk, jane.voice_id, other.voice_id


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────


@both_databases
@pytest.mark.parametrize("what", ["revoke", "erase"])
def test_swapped_names_withdraw_nobody(two: tuple[Desk, str, str], what: str) -> None:
    """The command would sign for the voice that the table names, and say that it was done."""
    desk, jane, other = two
    swap_names(desk, jane, other)
    with pytest.raises(VaultError, match="table of voices was changed"):
        desk.office.standing_of("jane")
    for voice_id in (jane, other):
        with pytest.raises(ConsentError):
            taking_back(desk, what, voice_id)
        assert state(desk, voice_id) == "active"
    swap_names(desk, other, jane)
    taking_back(desk, what, jane)
    assert state(desk, jane) == {"revoke": "revoked", "erase": "erased"}[what]
    assert state(desk, other) == "active"


def test_a_voices_id_withdraws_it_whatever_the_table_says(two: tuple[Desk, str, str]) -> None:
    desk, jane, other = two
    swap_names(desk, jane, other)
    taking_back(desk, "revoke", jane, f"id:{jane}")
    assert (state(desk, jane), state(desk, other)) == ("revoked", "active")


CHANGES = {
    "a deleted row": "DELETE FROM consent_voices WHERE voice_id = :jane",
    "a name given twice": "UPDATE consent_voices SET handle = 'jane' WHERE voice_id = :joe",
    "a name taken away": "UPDATE consent_voices SET handle = 'nobody' WHERE voice_id = :jane",
    "a row made up": (
        "INSERT INTO consent_voices (voice_id, handle, made_at) VALUES ('feedfeedfeedfeed', 'jane', 9e9)"
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_no_other_change_of_names_misdirects(two: tuple[Desk, str, str], change: str) -> None:
    desk, jane, other = two
    desk.office.all_voices()
    given = {"jane": jane, "joe": other}
    sql(desk, change, **{name: value for name, value in given.items() if f":{name}" in change})
    for what in ("revoke", "erase"):
        for voice_id in (jane, other):
            with pytest.raises(ConsentError):
                taking_back(desk, what, voice_id)
    with pytest.raises(GrantRefused) as caught:
        desk.grant()
    assert caught.value.reason == "tampered"
    assert (state(desk, jane), state(desk, other)) == ("active", "active")
    with pytest.raises(PinRefused):
        OwnerDesk(desk.office).enter("jane", JOES, "c")
    with pytest.raises(ConsentError):
        desk.listen("carol")


@both_databases
def test_a_name_moved_to_an_erased_voice_is_noticed(two: tuple[Desk, str, str]) -> None:
    """ "Joe was erased already" would be said of Jane, whose voice goes on."""
    desk, jane, other = two
    taking_back(desk, "erase", other, "joe")
    swap_names(desk, jane, other)
    fresh = Desk(desk.open_again(), desk.clock, desk.keys, desk.open_again)
    with pytest.raises(VaultError, match="table of voices was changed"):
        fresh.office.standing_of("jane")
    with pytest.raises(ConsentError, match="table of voices was changed"):
        taking_back(fresh, "revoke", jane)
    fresh.office.close()


def test_the_owners_door_opens_for_no_other_voice(two: tuple[Desk, str, str]) -> None:
    desk, jane, other = two
    swap_names(desk, jane, other)
    for name, pin in (("jane", JOES), ("joe", PIN), ("jane", PIN)):
        with pytest.raises(PinRefused):
            OwnerDesk(desk.office).enter(name, pin, "c")
    swap_names(desk, other, jane)
    assert OwnerDesk(desk.office).enter("jane", PIN, "c").voice_id == jane


def test_lists_and_revocations_have_the_signed_names(two: tuple[Desk, str, str]) -> None:
    desk, jane, other = two
    taking_back(desk, "revoke", jane)
    swap_names(desk, jane, other)
    fresh = desk.open_again()
    assert [revocation.voice for revocation in fresh.withdrawn()] == ["jane"]
    assert {voice.name: voice.state for voice in fresh.all_voices()} == {
        "jane": "tampered",
        "joe": "tampered",
    }
    assert [voice.name for voice in fresh.voices()] == ["heart"]
    fresh.close()


def test_a_voice_whose_record_is_gone_is_withdrawn_by_its_id_alone(desk: Desk) -> None:
    """A voice from before names were hashed: nothing is left that proves its name."""
    jane = desk.jane().voice_id
    forget_hashes(desk)
    sql(desk, "DELETE FROM consent_items WHERE kind = 'record'")
    with pytest.raises(VaultError, match=f"id:{jane}"):
        taking_back(desk, "revoke", jane)
    taking_back(desk, "revoke", jane, f"id:{jane}")
    assert state(desk, jane) == "revoked"


def test_a_voice_from_before_keeps_its_name_provable_when_it_is_erased(desk: Desk) -> None:
    jane = desk.jane().voice_id
    forget_hashes(desk)
    taking_back(desk, "erase", jane)
    (row,) = desk.office.books.reader.rows(kinds=("voice.erased",))
    assert row.table["handle_mac"] == desk.office.keys.mac_of("jane")
    sql(desk, "UPDATE consent_voices SET handle = 'joe'")
    fresh = desk.open_again()
    with pytest.raises(VaultError, match="was changed"), fresh.archive.reading() as connection:
        fresh.handles.find(connection, fresh.look(), "joe")
    fresh.close()


def test_the_time_of_a_row_changes_nothing(desk: Desk) -> None:
    """The newest voice of a name was the one that the table called so."""
    first = desk.jane().voice_id
    taking_back(desk, "revoke", first)
    desk.clock.now += 60
    second = desk.jane(
        statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "Options."),)
    )
    sql(desk, "UPDATE consent_voices SET made_at = 9e9 WHERE voice_id = :v", v=first)
    found = desk.office.standing_of("jane")
    assert found is not None
    assert found.voice_id == second.voice_id
    desk.grant()


def test_after_a_rotation_names_are_still_found(two: tuple[Desk, str, str]) -> None:
    desk, jane, _ = two
    desk.rotate("signing")
    fresh = desk.open_again()
    found = fresh.standing_of("jane")
    assert found is not None
    assert found.voice_id == jane
    fresh.close()


# ── what is sealed ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["record", "pin", "reference", "text"])
def test_another_voices_item_opens_nothing(two: tuple[Desk, str, str], kind: str) -> None:
    desk, jane, other = two
    with desk.office.archive.writing() as connection:
        chosen = (ITEMS.c.voice_id == other) & (ITEMS.c.kind == kind)
        sealed = connection.execute(select(ITEMS.c.sealed).where(chosen)).scalar()
        connection.execute(
            ITEMS.update().where((ITEMS.c.voice_id == jane) & (ITEMS.c.kind == kind)).values(sealed=sealed)
        )
    fresh = desk.open_again()
    with fresh.archive.reading() as connection, pytest.raises(VaultError, match="tampered"):
        fresh.vault.get(connection, jane, kind)
    fresh.close()


def test_swapped_keys_open_nothing(two: tuple[Desk, str, str]) -> None:
    desk, jane, other = two
    with desk.office.archive.writing() as connection:
        keys = {
            row.voice_id: row.wrapped_key
            for row in connection.execute(select(VOICES))
            if row.voice_id != "house"
        }
        for voice_id, key in ((jane, keys[other]), (other, keys[jane])):
            connection.execute(VOICES.update().where(VOICES.c.voice_id == voice_id).values(wrapped_key=key))
    fresh = desk.open_again()
    for voice_id in (jane, other):
        with fresh.archive.reading() as connection, pytest.raises(VaultError, match="tampered"):
            fresh.vault.get(connection, voice_id, "record")
    fresh.close()


def test_what_was_erased_and_put_back_stays_closed(desk: Desk) -> None:
    """Rows of a voice's key and items, copied before its erasure: neither sound nor usage is given out."""
    jane = desk.jane(pin=PIN).voice_id
    with desk.office.archive.reading() as connection:
        voice = dict(connection.execute(select(VOICES).where(VOICES.c.voice_id == jane)).one()._mapping)
        items = [
            dict(row._mapping) for row in connection.execute(select(ITEMS).where(ITEMS.c.voice_id == jane))
        ]
    taking_back(desk, "erase", jane)
    with desk.office.archive.writing() as connection:
        connection.execute(VOICES.update().where(VOICES.c.voice_id == jane).values(**voice))
        connection.execute(ITEMS.insert(), items)
    fresh = Desk(desk.open_again(), desk.clock, desk.keys, desk.open_again)
    with pytest.raises(PinRefused):
        OwnerDesk(fresh.office).enter("jane", PIN, "c")
    with pytest.raises(RegistrationError, match="erased"):
        fresh.listen("carol")
    with pytest.raises(GrantRefused) as caught:
        fresh.grant()
    assert caught.value.reason == "erased"
    fresh.office.close()


# ── challenges ───────────────────────────────────────────────────────────────────────────────────────────


@both_databases
def test_a_challenge_that_was_put_back_is_used_up_all_the_same(desk: Desk) -> None:
    challenge = desk.challenge()
    with desk.office.archive.reading() as connection:
        row = dict(connection.execute(select(CHALLENGES)).one()._mapping)
    desk.submit(desk.submission(challenge))
    sql(desk, "DELETE FROM consent_challenges")
    with desk.office.archive.writing() as connection:
        connection.execute(CHALLENGES.insert().values(row))
    again = desk.submission(
        challenge, handle="joe", statement=prompt("conf-adminmenu"),
        references=(Reference(prompt("vm-options"), "Options."),),
    )  # fmt: skip
    with pytest.raises(ChallengeError, match="used already"):
        desk.submit(again)


def test_a_challenge_by_phone_that_was_put_back_opens_nothing(desk: Desk) -> None:
    challenge = desk.challenge(by_phone=True)
    with desk.office.archive.reading() as connection:
        row = dict(connection.execute(select(CHALLENGES)).one()._mapping)
    desk.submit(desk.submission(challenge))
    sql(desk, "DELETE FROM consent_challenges")
    with desk.office.archive.writing() as connection:
        connection.execute(CHALLENGES.insert().values(row))
    with pytest.raises(ChallengeError, match="not valid now"):
        by_code(desk.office, challenge.challenge_id)


# ── tries ────────────────────────────────────────────────────────────────────────────────────────────────


@both_databases
def test_no_table_beside_the_ledger_counts_the_tries_of_a_pin(desk: Desk) -> None:
    """Every other table is put back after each try, as it was before the first."""
    desk.jane(pin=PIN)
    others = [table for table in METADATA.sorted_tables if table.name != "consent_ledger"]
    with desk.office.archive.reading() as connection:
        before = {table.name: connection.execute(select(table)).mappings().all() for table in others}
    answers: list[str] = []
    for number in range(pins.TRIES + 2):
        with pytest.raises(PinRefused) as caught:
            OwnerDesk(desk.office).enter("jane", f"{111_222 + number}", "c")
        answers.append(str(caught.value))
        with desk.office.archive.writing() as connection:
            for table in others:
                connection.execute(table.delete())
                if before[table.name]:
                    connection.execute(table.insert(), [dict(row) for row in before[table.name]])
    assert sum("does not open" in answer for answer in answers) == pins.TRIES
    with pytest.raises(PinRefused, match="too many"):
        OwnerDesk(desk.open_again()).enter("jane", PIN, "c")


def test_rows_of_tries_that_are_taken_away_open_nothing(desk: Desk) -> None:
    desk.jane(pin=PIN)
    for number in range(pins.TRIES):
        with pytest.raises(PinRefused):
            OwnerDesk(desk.office).enter("jane", f"{111_222 + number}", "c")
    sql(desk, "DELETE FROM consent_ledger WHERE kind LIKE 'pin.%'")
    for office in (desk.office, desk.open_again()):
        with pytest.raises(ConsentError):
            OwnerDesk(office).enter("jane", PIN, "c")


@both_databases
def test_wrong_codes_of_enrolment_are_counted_over_all_callers(desk: Desk) -> None:
    challenge = desk.challenge(by_phone=True, life_s=86_400.0)
    for number in range(WRONG_CODES):
        with pytest.raises(ChallengeError, match="not valid now"):
            by_code(desk.office, f"{number:010d}")
    sql(desk, "UPDATE consent_challenges SET used_at = NULL")
    for office in (desk.office, desk.open_again()):
        with pytest.raises(ChallengeError, match="not valid now"):
            by_code(office, challenge.challenge_id)
    rows = len(desk.kinds())
    with pytest.raises(ChallengeError):
        by_code(desk.office, "0000000000")
    assert len(desk.kinds()) == rows, "a guesser does not fill the ledger"
    desk.clock.now += 3_601
    assert by_code(desk.office, challenge.challenge_id).lines


# ── what the house keeps ─────────────────────────────────────────────────────────────────────────────────


@both_databases
def test_the_check_of_copies_does_not_pass_when_its_fingerprints_are_gone(desk: Desk) -> None:
    """The same recordings could be handed in again."""
    desk.jane()
    taken = desk.office.look().voices
    act = desk.act("alice", "revoke", voice_id=next(iter(taken)))
    Withdrawals(desk.office.books, desk.office.vault).revoke("jane", "asked", act)
    sql(desk, "DELETE FROM consent_items WHERE voice_id = 'house'")
    for sound in ({}, {"statement": prompt("conf-adminmenu")}):
        with pytest.raises(VaultError, match="fingerprints of earlier recordings are gone"):
            desk.submit(handle="jane2", **sound)
    assert len(desk.office.look().voices) == 1


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM consent_voices WHERE voice_id = 'house'",
        "UPDATE consent_items SET sealed = wrapped_key FROM consent_voices WHERE kind = 'fingerprint'",
    ],
)
def test_what_was_done_to_the_house_keeps_nobody_from_an_erasure(desk: Desk, change: str) -> None:
    jane = desk.jane().voice_id
    sql(desk, change)
    taking_back(desk, "erase", jane)
    assert state(desk, jane) == "erased"


def test_an_older_fingerprint_in_a_newer_ones_place_is_noticed(desk: Desk) -> None:
    """A number that is free again is given again, and what is sealed names no more than that number."""
    desk.jane()
    with desk.office.archive.reading() as connection:
        prints = desk.office.vault.of_kind(connection, "fingerprint")["house"]
        (old,) = connection.execute(
            select(ITEMS).where((ITEMS.c.voice_id == "house") & (ITEMS.c.number == prints[0].number))
        )
    with desk.office.archive.writing() as connection:
        desk.office.vault.remove(connection, "house", "fingerprint", 0)
        desk.office.vault.remove(connection, "house", "fingerprint", 1)
        desk.office.vault.put(connection, "house", "fingerprint", b"0" * 64 + bytes(64))
        connection.execute(ITEMS.insert().values(**{**old._mapping, "number": 1}))
    with pytest.raises(VaultError):
        joe(desk)


def test_fingerprints_from_before_are_counted_once_and_then_missed(desk: Desk) -> None:
    desk.jane()
    with desk.office.books.writing() as writing:  # as an older version left it
        writing.standing.prints.clear()
        writing.standing.uncounted = True
    joe(desk)
    (row,) = desk.office.books.reader.rows(kinds=("prints.counted",))
    assert [item["number"] for item in row.table["prints"]] == [0, 1]
    sql(desk, "DELETE FROM consent_items WHERE voice_id = 'house' AND number = 0")
    with pytest.raises(VaultError, match="1 of 4 fingerprints"):
        desk.submit(handle="third", statement=prompt("vm-intro"))


def test_a_checkpoint_from_before_says_that_fingerprints_are_not_counted(desk: Desk) -> None:
    desk.jane()
    kept = desk.office.look().to_json()
    for name in ("prints", "uncounted", "wrong_codes_ms"):
        del kept[name]
    for voice in kept["voices"].values():
        for name in ("handle_mac", "challenge", "pin_tries", "pin_locked_ms"):
            del voice[name]
    assert Standing.from_json(kept).uncounted
    assert not Standing.from_json({**kept, "voices": {}}).uncounted


def test_an_emptied_list_of_blocked_speakers_blocks_registrations(desk: Desk) -> None:
    blocklist = Blocklist(desk.office.books, desk.office.vault)
    sample = prompt("vm-options")
    act = desk.act("bob", "block", label="the mayor", lift=False, sample=sample.sha256)
    blocklist.add("the mayor", sample, PlannedSpeaker(), act)
    desk.checks.speaker = PlannedSpeaker()
    sql(desk, "DELETE FROM consent_items WHERE kind = 'blocked'")
    with pytest.raises(VaultError, match="the mayor"):
        desk.submit()
    blocklist.lift("the mayor", desk.act("rosa", "block", label="the mayor", lift=True))
    assert desk.submit().voice_id in desk.office.look().voices


@both_databases
def test_times_in_a_table_delete_nothing_and_keep_nothing(desk: Desk) -> None:
    jane = desk.jane(pin=PIN).voice_id
    sql(desk, "UPDATE consent_items SET expires_at = 1")
    assert Withdrawals(desk.office.books, desk.office.vault).tidy() == []
    desk.grant()
    sql(desk, "UPDATE consent_items SET expires_at = 9e9")
    desk.clock.now += VOICEPRINT_S + 1
    (receipt,) = Withdrawals(desk.office.books, desk.office.vault).tidy()
    assert (receipt.voice_id, receipt.items) == (jane, 2)
    desk.clock.now += FINGERPRINT_S
    (receipt,) = Withdrawals(desk.office.books, desk.office.vault).tidy()
    assert (receipt.voice_id, receipt.items) == ("house", 2)
    with desk.office.archive.reading() as connection:
        assert {item.kind for item in desk.office.vault.items(connection, jane)} == {
            "record", "reference", "text", "statement", "pin",
        }  # fmt: skip


# ── the ledger's own rows ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hashed_anew", [False, True])
def test_edited_usage_is_not_told_as_usage(desk: Desk, hashed_anew: bool) -> None:
    """A row in the middle is not read again when the ledger is read on."""
    jane = desk.jane(pin=PIN).voice_id
    granted = desk.grant()
    desk.office.record_usage(jti=granted.jti, call_id="c1", seconds=600.0, dialplan="demo")  # type: ignore[attr-defined]
    (used,) = desk.office.books.reader.rows(kinds=("voice.used",))
    desk.grant()
    body = used.body.replace("600.0", "1.0")
    anew = row_hash(used.seq, used.at_ms, used.kind, used.subject, body, used.prev)
    hash_ = anew if hashed_anew else used.hash
    sql(desk, "UPDATE consent_ledger SET body = :b, hash = :h WHERE seq = :s", b=body, h=hash_, s=used.seq)
    with pytest.raises(LedgerError, match=f"ledger row {used.seq} was edited"):
        uses(desk.office.books, jane)
    with pytest.raises(LedgerError, match="was edited"):
        OwnerDesk(desk.office).enter("jane", PIN, "c").spoken()
