"""Registrations and the attacks on them: each refused with its own reason, or held for a human ear."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from consent.checks.checklist import Checks
from consent.checks.sound import RATE_HZ, Recording, of_call, pcm16
from consent.errors import (
    ChallengeError,
    ConsentError,
    GrantRefused,
    LedgerError,
    OperatorError,
    RegistrationError,
)
from consent.grants.scope import Scope
from consent.office.blocklist import Blocklist
from consent.office.office import ConsentOffice
from consent.office.record import Reference
from consent.office.submission import Submission
from consent.statements.statement import Terms
from tests.consent.conftest import (
    Desk,
    PlannedClassifier,
    PlannedMark,
    PlannedRecogniser,
    PlannedSpeaker,
    both_databases,
    prompt,
)


def nothing_kept(desk: Desk) -> bool:
    """No voice, no item, and the challenge still open."""
    assert desk.office.look().voices == {}
    with desk.office.archive.reading() as connection:
        return desk.office.vault.items(connection, "house") == []


@both_databases
def test_a_registration_that_passes_every_check_may_be_used_once_another_has_heard_it(desk: Desk) -> None:
    done = desk.submit()
    assert done.state == "pending"
    with pytest.raises(GrantRefused, match="waits for review"):
        desk.grant()
    assert desk.review("bob") == "active"
    assert {finding.verdict for finding in done.findings} == {"passed"}
    assert len(done.findings) == 9
    assert desk.office.grant(Scope("jane", "support", "demo", "en-GB", "c1")).voice == "jane"


@both_databases
def test_without_recogniser_and_classifier_it_waits_for_a_second_operator(needs_review: Desk) -> None:
    desk = needs_review
    done = desk.submit()
    assert done.state == "pending"
    held = {finding.check for finding in done.findings if finding.verdict == "review"}
    assert held == {"synthetic speech", "statement words"}
    with pytest.raises(GrantRefused, match="waits for review") as refusal:
        desk.grant()
    assert refusal.value.reason == "pending"
    assert desk.review("bob") == "active"
    desk.grant()


def test_the_ledger_holds_no_name(desk: Desk) -> None:
    desk.jane(pin="482913")
    whole = " ".join(row.body for row in desk.office.books.reader.rows())
    for secret in ("Jane", "Doe", "Acme", "482913", "Congratulations"):
        assert secret not in whole


# ── four eyes ────────────────────────────────────────────────────────────────────────────────────────────


def test_who_registered_does_not_review(needs_review: Desk) -> None:
    needs_review.submit()
    with pytest.raises(OperatorError, match="another operator reviews"):
        needs_review.review("alice")


def test_whose_appointment_goes_back_to_the_registrars_founder_does_not_review(needs_review: Desk) -> None:
    from consent.ledger.operators import OperatorKey
    from consent.office.operator_desk import OperatorDesk

    desk = needs_review
    puppet = desk.keys["puppet"] = OperatorKey.make("puppet")
    act = desk.act("alice", "operator", name="puppet", role="reviewer", public=puppet.public)
    OperatorDesk(desk.office.books).add("puppet", "reviewer", puppet.public, act)
    second = desk.keys["second"] = OperatorKey.make("second")
    act = desk.act("puppet", "operator", name="second", role="reviewer", public=second.public)
    OperatorDesk(desk.office.books).add("second", "reviewer", second.public, act)
    desk.submit()
    for name in ("puppet", "second"):
        with pytest.raises(OperatorError, match="made operators by one founder, alice"):
            desk.review(name)
    assert desk.review("rosa") == "active", "whom bob added"


def test_who_has_not_listened_does_not_approve(needs_review: Desk) -> None:
    desk = needs_review
    desk.submit()
    standing = desk.office.standing_of("jane")
    assert standing is not None
    about = {"voice_id": standing.voice_id, "record_hash": standing.record_hash, "decision": "approve"}
    with pytest.raises(OperatorError, match="bob has not listened yet"):
        desk.office.reviews.review("jane", desk.act("bob", "review", **about))
    desk.listen("rosa")
    with pytest.raises(OperatorError, match="bob has not listened yet"):
        desk.office.reviews.review("jane", desk.act("bob", "review", **about))
    sounds = desk.listen("bob")
    assert len(sounds["statement"]) == len(prompt("basic-pbx-ivr-main").pcm)
    assert desk.office.reviews.review("jane", desk.act("bob", "review", **about)) == "active"
    heard = desk.office.books.reader.rows(kinds=("voice.heard",))
    assert [row.table["by"] for row in heard] == ["rosa", "bob"]


def test_an_auditor_does_not_review(needs_review: Desk) -> None:
    needs_review.submit()
    with pytest.raises(OperatorError, match="carol is auditor"):
        needs_review.review("carol")


def test_a_rejected_voice_is_never_granted(needs_review: Desk) -> None:
    needs_review.submit()
    assert needs_review.review("bob", "reject") == "rejected"
    with pytest.raises(GrantRefused):
        needs_review.grant()
    with pytest.raises(RegistrationError, match="waits for no review"):
        needs_review.review("rosa")


def test_a_review_is_for_one_registration_only(needs_review: Desk) -> None:
    desk = needs_review
    desk.submit()
    first = desk.office.standing_of("jane")
    assert first is not None
    act = desk.act("bob", "review", voice_id=first.voice_id, record_hash="0" * 64, decision="approve")
    with pytest.raises(OperatorError, match="another registration"):
        desk.office.reviews.review("jane", act)


def test_a_revoked_operator_may_nothing(desk: Desk) -> None:
    from consent.office.operator_desk import OperatorDesk

    act = desk.act("bob", "operator", name="alice", role="revoked")
    submission = desk.submission()
    OperatorDesk(desk.office.books).revoke("alice", "left", act)
    with pytest.raises(OperatorError, match="alice was revoked"):
        desk.submit(submission)
    with pytest.raises(OperatorError, match="alice was revoked"):
        desk.challenge()
    assert nothing_kept(desk)


def test_a_stranger_with_an_operators_name_may_nothing(desk: Desk) -> None:
    from consent.ledger.operators import OperatorKey

    submission = desk.submission()
    desk.keys["alice"] = OperatorKey.make("alice")
    with pytest.raises(OperatorError, match="not the one the office knows"):
        desk.submit(submission)


def test_an_operator_signs_exactly_what_is_registered(desk: Desk) -> None:
    submission = desk.submission()
    act = desk.act("alice", "register", **{**submission.digest, "statement": "another file"})
    with pytest.raises(OperatorError, match="another registration"):
        desk.office.registrar.submit(submission, act)


# ── the statement ────────────────────────────────────────────────────────────────────────────────────────


def test_another_persons_statement_is_refused(desk: Desk) -> None:
    desk.checks.speaker = PlannedSpeaker(likeness=0.4)
    with pytest.raises(RegistrationError, match="another person's statement") as refusal:
        desk.submit()
    assert refusal.value.check == "same speaker"
    assert nothing_kept(desk)


def test_a_statement_in_the_grey_zone_is_held_for_review(desk: Desk) -> None:
    desk.checks.speaker = PlannedSpeaker(likeness=0.72)
    done = desk.submit()
    assert done.state == "pending"
    assert [finding.check for finding in done.findings if finding.verdict == "review"] == ["same speaker"]


def test_without_a_speaker_model_it_is_held_for_review(desk: Desk) -> None:
    desk.checks.speaker = None
    done = desk.submit()
    assert done.state == "pending"
    held = {finding.check for finding in done.findings if finding.verdict == "review"}
    assert held == {"one speaker", "same speaker"}


@pytest.mark.parametrize("change", ["word", "digit", "name", "company", "no", "purpose", "year"])
def test_a_statement_with_one_critical_word_changed_is_refused(desk: Desk, change: str) -> None:
    challenge = desk.challenge()
    text = challenge.statement.text
    from consent.statements.lexicon import LEXICA

    digits = LEXICA["en"].digits
    other_digit = digits[(challenge.digits[-1] + 1) % 10]
    changed = {
        "word": text.replace(challenge.words[1], "xylophone"),
        "digit": re.sub(rf"{digits[challenge.digits[-1]]}\.$", f"{other_digit}.", text),
        "name": text.replace("Jane Doe", "Jane Roe"),
        "company": text.replace("Acme", "Apex"),
        "no": text.replace("I consent", "I do not consent"),
        "purpose": text.replace("support", "sales"),
        "year": text.replace("2027", "2037"),
    }[change]
    assert changed != text
    desk.checks.recogniser = PlannedRecogniser(changed)
    with pytest.raises(RegistrationError, match="statement words"):
        desk.submit(challenge=challenge)
    assert nothing_kept(desk)
    desk.checks.recogniser = PlannedRecogniser(text)
    assert desk.submit(challenge=challenge).state == "pending", "a second reading may follow"
    assert desk.review() == "active"


def test_a_changed_word_that_no_recogniser_hears_is_never_passed(needs_review: Desk) -> None:
    done = needs_review.submit()
    assert done.state == "pending"
    assert "statement words" in {finding.check for finding in done.findings if finding.verdict == "review"}


def test_an_old_challenge_is_refused(desk: Desk) -> None:
    submission = desk.submission()
    desk.clock.now += 30 * 60 + 1
    with pytest.raises(ChallengeError, match="expired"):
        desk.submit(submission)
    assert nothing_kept(desk)


def test_the_same_challenge_twice_is_refused(desk: Desk) -> None:
    challenge = desk.challenge()
    desk.submit(challenge=challenge)
    with pytest.raises(ChallengeError, match="used already"):
        desk.submit(challenge=challenge, handle="jane2", statement=prompt("conf-adminmenu"))


def test_an_unknown_challenge_is_refused(desk: Desk) -> None:
    with pytest.raises(ChallengeError, match="no challenge"):
        desk.submit(challenge_id="1234567890")


def test_a_challenge_changed_in_the_database_is_refused(desk: Desk) -> None:
    from sqlalchemy import text

    challenge = desk.challenge()
    other = desk.challenge(replace(Desk.TERMS, name="Mallory Moe"))
    desk.clock.now += 3600
    with desk.office.archive.writing() as connection:
        connection.execute(text("UPDATE consent_challenges SET expires_at = expires_at + 1e6"))
    with pytest.raises(ChallengeError, match="expired"):
        desk.submit(challenge=challenge)
    with desk.office.archive.writing() as connection:
        token = connection.execute(
            text("SELECT token FROM consent_challenges WHERE challenge_id = :id"), {"id": other.challenge_id}
        ).scalar()
        connection.execute(
            text("UPDATE consent_challenges SET token = :token WHERE challenge_id = :id"),
            {"token": token, "id": challenge.challenge_id},
        )
    with pytest.raises(ChallengeError, match="tampered"):
        desk.submit(challenge=challenge)


def test_a_registration_while_the_clock_is_turned_back_is_refused(desk: Desk) -> None:
    challenge = desk.challenge()
    desk.clock.now += 60
    desk.challenge()
    desk.clock.now -= 50
    with pytest.raises(LedgerError, match="clock is behind"):
        desk.submit(challenge=challenge)


# ── the recordings ───────────────────────────────────────────────────────────────────────────────────────


def recording(pcm: np.ndarray, name: str = "made") -> Recording:
    return of_call(name, pcm.astype(np.float32), 24_000)


def tone(seconds: float) -> np.ndarray:
    """Chords with a beat: music of a kind."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    beat = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 2 * t))
    return sum(np.sin(2 * np.pi * f * t) for f in (220, 277.2, 329.6, 440)) * 0.15 * beat


@pytest.mark.parametrize("role", ["statement", "reference"])
@pytest.mark.parametrize("sound", ["silence", "music", "noise"])
def test_what_is_no_speech_is_refused(desk: Desk, role: str, sound: str) -> None:
    made = recording({
        "silence": np.zeros(10 * RATE_HZ),
        "music": tone(10),
        "noise": np.random.default_rng(1).normal(0, 0.05, 10 * RATE_HZ),
    }[sound])  # fmt: skip
    given = {"statement": made} if role == "statement" else {"references": (Reference(made, "text"),)}
    with pytest.raises(RegistrationError, match="no speech in it") as refusal:
        desk.submit(**given)
    assert refusal.value.check == f"{role} sound"
    assert nothing_kept(desk)


def test_two_speakers_in_one_recording_are_refused(desk: Desk) -> None:
    desk.checks.speaker = PlannedSpeaker(one_voice=False)
    with pytest.raises(RegistrationError, match="two voices"):
        desk.submit()


def test_a_reference_that_is_too_short_or_too_long_is_refused(desk: Desk) -> None:
    short = recording(prompt("demo-congrats").pcm[: 2 * RATE_HZ])
    with pytest.raises(RegistrationError, match="3 to 30 s are taken"):
        desk.submit(references=(Reference(short, "text"),))
    with pytest.raises(RegistrationError, match="3 to 30 s are taken"):
        desk.submit(references=(Reference(prompt("demo-instruct"), "text"),))


def test_a_noisy_or_clipped_reference_is_refused(desk: Desk) -> None:
    clean = prompt("demo-congrats").pcm[: 12 * RATE_HZ]
    noise = np.random.default_rng(1).normal(0, np.sqrt((clean**2).mean()) / 2.5, len(clean))
    with pytest.raises(RegistrationError, match="too noisy"):
        desk.submit(references=(Reference(recording(clean + noise), "text"),))
    with pytest.raises(RegistrationError, match="is clipped"):
        desk.submit(references=(Reference(recording(np.clip(clean * 20, -1, 1)), "text"),))


def test_a_muffled_reference_is_refused(desk: Desk) -> None:
    import soxr

    clean = prompt("demo-congrats").pcm[: 12 * RATE_HZ]
    muffled = soxr.resample(soxr.resample(clean, RATE_HZ, 4_000), 4_000, RATE_HZ)
    with pytest.raises(RegistrationError, match="nothing above"):
        desk.submit(references=(Reference(recording(muffled), "text"),))


def test_a_statement_cut_together_from_the_reference_is_refused(desk: Desk) -> None:
    reference = prompt("demo-congrats")
    pieces = [reference.pcm[s * RATE_HZ : (s + 4) * RATE_HZ] for s in (12, 3, 20)]
    with pytest.raises(RegistrationError, match="cut together") as refusal:
        desk.submit(statement=recording(np.concatenate(pieces) * 0.5, "spliced"))
    assert refusal.value.check == "copies"


@pytest.mark.parametrize("how", ["the same file", "quieter", "over G.711 with noise", "a piece of it"])
def test_a_recording_handed_in_before_is_refused(desk: Desk, how: str) -> None:
    desk.jane()
    old = prompt("basic-pbx-ivr-main").pcm
    rng = np.random.default_rng(2)
    again = recording({
        "the same file": old,
        "quieter": old * 0.2,
        "over G.711 with noise": mulaw(old + rng.normal(0, np.sqrt((old**2).mean()) / 10, len(old))),
        "a piece of it": np.concatenate((prompt("vm-intro").pcm, old[5000 : 5 * RATE_HZ])),
    }[how], "again")  # fmt: skip
    with pytest.raises(RegistrationError, match="handed in before"):
        desk.submit(handle="jane2", statement=again, references=(Reference(prompt("vm-options"), "text"),))


def mulaw(pcm: np.ndarray) -> np.ndarray:
    """G.711's companding, 8 bits."""
    squeezed = np.round(np.sign(pcm) * np.log1p(255 * np.abs(np.clip(pcm, -1, 1))) / np.log(256) * 127) / 127
    return np.sign(squeezed) * (256 ** np.abs(squeezed) - 1) / 255


@pytest.mark.parametrize("role", ["statement", "reference"])
def test_a_recording_with_our_own_mark_is_refused_at_once(desk: Desk, role: str) -> None:
    """The mark's detector is a double here; the engine's own sound is tried where the detector is."""
    pcm = (prompt("basic-pbx-ivr-main") if role == "statement" else prompt("demo-congrats")).pcm
    desk.checks.own_mark = PlannedMark({len(pcm)})
    with pytest.raises(RegistrationError, match="own mark is in it") as refusal:
        desk.submit()
    assert refusal.value.check == "own watermark"
    assert nothing_kept(desk)


def test_a_classifiers_find_is_refused_and_its_doubt_held(desk: Desk) -> None:
    desk.checks.classifier = PlannedClassifier(found=True)
    with pytest.raises(RegistrationError, match="a machine's voice"):
        desk.submit()
    desk.checks.classifier = PlannedClassifier(found=None)
    done = desk.submit()
    assert done.state == "pending"
    assert [finding.check for finding in done.findings if finding.verdict == "review"] == ["synthetic speech"]


def test_a_blocked_speaker_is_refused(desk: Desk) -> None:
    speaker = PlannedSpeaker()
    sample = prompt("vm-options")
    act = desk.act("bob", "block", label="the mayor", lift=False, sample=sample.sha256)
    blocklist = Blocklist(desk.office.books, desk.office.vault)
    blocklist.add("the mayor", sample, speaker, act)
    desk.checks.speaker = PlannedSpeaker()
    with pytest.raises(RegistrationError, match="the mayor, who is blocked"):
        desk.submit()
    blocklist.lift("the mayor", desk.act("rosa", "block", label="the mayor", lift=True))
    assert {finding.verdict for finding in desk.submit().findings} == {"passed"}
    assert desk.review() == "active"


def test_minors_are_refused(desk: Desk) -> None:
    with pytest.raises(RegistrationError, match="minors"):
        desk.submit(adult=False)


# ── names, terms ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "handle", ["../../etc/passwd", "a/b", "..", "Jane", "x' OR '1'='1", "", "a" * 65, "heart", "j\n"]
)
def test_a_voices_name_is_no_path_and_no_sql(desk: Desk, handle: str) -> None:
    with pytest.raises(RegistrationError, match=r"name|stock voice"):
        desk.submit(handle=handle)
    assert nothing_kept(desk)


@pytest.mark.parametrize(
    "name",
    [
        "Robert'); DROP TABLE consent_ledger;--",
        "../../root",
        "Jane\nDoe",
        "Jane\u202eDoe",
        "",
        "x" * 200,
        "4711",
    ],
)
def test_a_persons_name_is_a_name(desk: Desk, name: str) -> None:
    with pytest.raises(RegistrationError, match="not a person's name"):
        desk.challenge(replace(Desk.TERMS, name=name))
    assert desk.office.books.prove().ok


@pytest.mark.parametrize(
    "name", ["Jane Doe", "Mary-Jane O'Neill", "José Ångström", "Li Wei", "Ana M. de Souza", "Иван Петров"]
)
def test_people_have_many_kinds_of_names(desk: Desk, name: str) -> None:
    assert name in desk.challenge(replace(Desk.TERMS, name=name)).statement.text


@pytest.mark.parametrize(
    "terms",
    [
        {"until": date(2020, 1, 1)},
        {"until": date(2060, 1, 1)},
        {"purposes": ()},
        {"purposes": ("Any thing!",)},
        {"languages": ("xx",)},
        {"spoken": "tlh"},
        {"company": "Acme\u0000"},
    ],
)
def test_terms_that_cannot_be_meant_are_refused(desk: Desk, terms: dict[str, object]) -> None:
    with pytest.raises(RegistrationError):
        desk.challenge(replace(Desk.TERMS, **terms))  # type: ignore[arg-type]


def test_a_name_that_is_taken_is_refused(desk: Desk) -> None:
    desk.jane()
    with pytest.raises(RegistrationError, match="registered already"):
        desk.submit(statement=prompt("conf-adminmenu"), references=(Reference(prompt("vm-options"), "t"),))


def test_two_registrations_at_once_are_one(desk: Desk) -> None:
    """Two processes, one challenge: both listen, one is kept."""
    submission = desk.submission()
    other = desk.open_again()
    other.checks = desk.checks
    won: list[str] = []
    lost: list[str] = []
    ready = threading.Barrier(2)

    def submit(office: ConsentOffice) -> None:
        ready.wait()
        try:
            act = desk.act("alice", "register", **submission.digest)
            won.append(office.registrar.submit(submission, act, confirm=desk.confirm()).voice_id)
        except ConsentError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=submit, args=(office,)) for office in (desk.office, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 1)
    assert list(desk.office.look().voices) == won
    assert desk.office.books.prove().ok
    other.close()


# ── the process killed between any two steps ─────────────────────────────────────────────────────────────


def _die_at(office: ConsentOffice, statement: int) -> None:
    """Has this process killed before its SQL statement of that number, or (counted on) its commit."""
    from sqlalchemy import event

    count = 0

    def step(*_: object) -> None:
        nonlocal count
        count += 1
        if count == statement:
            os.kill(os.getpid(), 9)

    event.listen(office.archive._engine, "before_cursor_execute", step)
    event.listen(office.archive._engine, "commit", step)


def _in_a_process_that_dies(work: Callable[[], None]) -> bool:
    """Runs `work` in a child; whether it was killed."""
    if (pid := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed instead of dying"
    return os.WIFSIGNALED(status)


@pytest.mark.long("a process is killed at each of a registration's SQL statements")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_registration_killed_between_any_two_steps_leaves_nothing_or_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = desk.submission(pin="482913")
    act = desk.act("alice", "register", **submission.digest)
    found = desk.office.registrar.examine(submission, act).outcome
    monkeypatch.setattr(Checks, "run", lambda *_: found)  # it asks no database: once, not in every child
    kept = len(desk.office.books.reader.rows())
    steps = killed = 0
    while True:
        steps += 1

        def work(step: int = steps) -> None:
            office = desk.open_again()
            office.checks.speaker = desk.checks.speaker
            office.registrar._checks = desk.checks
            _die_at(office, step)
            office.registrar.submit(submission, act, confirm=desk.confirm())

        if not _in_a_process_that_dies(work):
            break
        killed += 1
        assert desk.office.look().voices == {}, f"half a registration after step {steps}"
        assert len(desk.office.books.reader.rows()) == kept
        with desk.office.archive.reading() as connection:
            assert desk.office.vault.items(connection, "house") == []
    assert killed > 20, "every statement of the registration was a place to die"
    assert [voice.state for voice in desk.office.look().voices.values()] == ["pending"]
    assert desk.review() == "active"
    desk.grant()
    assert desk.office.books.prove().ok


def test_a_submission_keeps_exactly_what_was_handed_in(desk: Desk) -> None:
    submission: Submission = desk.submission()
    done = desk.submit(submission)
    with desk.office.archive.reading() as connection:
        kept = desk.office.vault.get(connection, done.voice_id, "statement")
    assert kept == pcm16(submission.statement.pcm)


def test_terms_survive_being_written() -> None:
    assert Terms.from_json(Desk.TERMS.to_json()) == Desk.TERMS
