"""What the office does for operators: changes by a signed act, looks for whoever may open the socket."""

from __future__ import annotations

import os
import secrets
from typing import Any, Final

from consent.checks.checklist import Finding
from consent.checks.sound import Recording, decode
from consent.errors import ConsentError, GrantRefused, LedgerError, OperatorError, RegistrationError
from consent.grants.grant import GrantVerifier, public_keys
from consent.ledger.chain import HEAD_TYP, Proof, Row, head_of
from consent.ledger.standing import OperatorStanding, VoiceStanding
from consent.office import backup, usage
from consent.office.blocklist import Blocklist
from consent.office.office import ConsentOffice
from consent.office.operator_desk import OperatorDesk
from consent.office.record import Reference
from consent.office.registration import Draft, Submission
from consent.office.rotation import Rotation
from consent.office.usage import Use
from consent.office.withdrawal import Withdrawals
from consent.proof import bundle
from consent.proof.evidence import ConsentOfCall, consent_of
from consent.service import operator_questions as asked
from consent.service.office_rooms import OfficeRooms
from consent.service.office_server import Answered, Asker
from consent.service.remembered import Remembered

WAITING: Final = 8
"""Registrations and keys that wait for their act; of more than these the oldest has to begin again."""


class OperatorCounter:
    """Answers the questions of `consent.service.operator_questions`."""

    def __init__(self, rooms: OfficeRooms, gateway: int) -> None:
        """`gateway` is the user id that calls run under."""
        self._rooms = rooms
        self._gateway = gateway
        self._drafts: Remembered[Draft] = Remembered(WAITING)
        self._rotations: Remembered[Rotation] = Remembered(WAITING)
        """by the kid of the key that waits for an act"""

    @property
    def _office(self) -> ConsentOffice:
        return self._rooms.office()

    @property
    def answers(self) -> list[Answered]:
        """What may be asked here."""
        return [
            Answered(asked.AskFacts, self.facts),
            Answered(asked.IssueChallenge, self.challenge),
            Answered(asked.AskIdentity, self.identity),
            Answered(asked.ExamineVoice, self.examine),
            Answered(asked.ConfirmVoice, self.confirm),
            Answered(asked.ListenToVoice, self.listen),
            Answered(asked.ReviewVoice, self.review),
            Answered(asked.WithdrawVoice, self.revoke),
            Answered(asked.EraseVoice, self.erase),
            Answered(asked.BlockSpeaker, self.block),
            Answered(asked.ListVoices, self.voices),
            Answered(asked.ShowVoice, self.show),
            Answered(asked.ListUses, self.uses),
            Answered(asked.ExportVoice, self.export),
            Answered(asked.AskConsentOfCall, self.consent_of_call),
            Answered(asked.ListChecks, self.checks),
            Answered(asked.ProveLedger, self.prove),
            Answered(asked.SignHead, self.head),
            Answered(asked.ListRows, self.rows),
            Answered(asked.ResumeLedger, self.resume),
            Answered(asked.ListOperators, self.operators),
            Answered(asked.AddOperator, self.add_operator),
            Answered(asked.RevokeOperator, self.revoke_operator),
            Answered(asked.AskResumeTerms, self.resume_terms),
            Answered(asked.AskLostRows, self.lost_rows),
            Answered(asked.AskClock, self.clock),
            Answered(asked.AskTip, self.tip),
            Answered(asked.SetClock, self.set_clock),
            Answered(asked.AskNextKey, self.next_key),
            Answered(asked.RotateKey, self.rotate),
            Answered(asked.RevokeKey, self.revoke_key),
            Answered(asked.MakeBackup, self.backup),
            Answered(asked.RestoreBackup, self.restore),
        ]

    def facts(self, _: Asker, __: asked.AskFacts) -> asked.OfficeFacts:
        """Opens nothing."""
        mark = asked.database_mark(self._rooms.place.sql_url)
        return asked.OfficeFacts(os.getuid(), self._gateway, mark, os.getpid())

    # ── a voice's way in ─────────────────────────────────────────────────────────────────────────────

    def challenge(self, _: Asker, question: asked.IssueChallenge) -> asked.IssuedChallenge:
        """Raises as `Registrar.challenge` does."""
        issued = self._office.registrar.challenge(
            question.terms, question.act, salt=question.salt, by_phone=question.by_phone,
            life_s=question.life_s,
        )  # fmt: skip
        return asked.IssuedChallenge(issued.challenge_id, issued.statement.text, issued.expires_at)

    def examine(self, asker: Asker, question: asked.ExamineVoice) -> asked.ExaminedVoice:
        """Raises as `Registrar.examine` does; who stopped listening to the findings stops it."""
        submission = Submission(
            question.handle,
            tuple(Reference(_recording(clip), clip.text) for clip in question.references),
            _recording(question.statement),
            question.challenge_id,
            question.adult,
            question.pin,
        )

        def told(finding: Finding) -> None:
            asker.say(finding.to_json())

        draft = self._rooms.listening().registrar.examine(submission, question.act, told)
        name = secrets.token_hex(8)
        self._drafts.keep(name, draft)
        return asked.ExaminedVoice(name, dict(draft.found))

    def confirm(self, _: Asker, question: asked.ConfirmVoice) -> asked.TakenVoice:
        """Raises as `Registrar.keep` does."""
        draft = self._drafts.of(question.draft)
        if draft is None:
            raise RegistrationError("state", "this registration is not known any more; hand it in again")
        done = self._office.registrar.keep(draft, question.act)
        self._drafts.forget(question.draft)
        return asked.TakenVoice(done.voice_id, done.handle, done.state, tuple(done.findings))

    def listen(self, _: Asker, question: asked.ListenToVoice) -> asked.HeardVoice:
        """Raises as `Registrar.listen` does."""
        sounds = self._office.registrar.listen(question.handle, question.act)
        return asked.HeardVoice(sounds["statement"].tobytes(), sounds["reference"].tobytes())

    def review(self, _: Asker, question: asked.ReviewVoice) -> str:
        """Raises as `Registrar.review` does."""
        return self._office.registrar.review(question.handle, question.act)

    # ── its way out ──────────────────────────────────────────────────────────────────────────────────

    @property
    def _withdrawals(self) -> Withdrawals:
        office = self._office
        return Withdrawals(office.books, office.vault)

    def revoke(self, _: Asker, question: asked.WithdrawVoice) -> None:
        """Raises as `Withdrawals.revoke` does."""
        self._withdrawals.revoke(question.handle, question.reason, question.act)

    def erase(self, _: Asker, question: asked.EraseVoice) -> asked.ErasedVoice:
        """Raises as `Withdrawals.erase` does."""
        folder = self._rooms.place.consent_dir.parent
        receipt = self._withdrawals.erase(question.handle, question.reason, question.act, folder)
        return asked.ErasedVoice(receipt, folder)

    def block(self, _: Asker, question: asked.BlockSpeaker) -> None:
        """Raises as `Blocklist` does."""
        if question.sample is None:
            office = self._office
            Blocklist(office.books, office.vault).lift(question.label, question.act)
            return
        office = self._rooms.listening()
        sample = _recording(question.sample)
        Blocklist(office.books, office.vault).add(question.label, sample, office.checks.speaker, question.act)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────

    def _known(self, handle: str) -> VoiceStanding:
        found = self._office.standing_of(handle)
        if found is None:
            raise RegistrationError("name", f"no voice is called {handle!r}; see: voicegate voice list")
        return found

    def voices(self, _: Asker, __: asked.ListVoices) -> tuple[asked.ListedVoice, ...]:
        """Raises `LedgerError`."""
        office = self._office
        return tuple(
            asked.ListedVoice(voice.name, voice.state, voice.stock)
            for voice in (office.stock, *office.all_voices())
        )

    def show(self, _: Asker, question: asked.ShowVoice) -> asked.VoiceFile:
        """Raises `RegistrationError` for a name that nobody has, `LedgerError`."""
        office, standing = self._office, self._known(question.handle)
        claims, gone = None, ""
        try:
            claims = dict(office.record(standing).claims)
        except ConsentError as error:
            gone = str(error)
        rows = [
            row
            for row in office.books.rows(subject=standing.voice_id)
            if row.kind not in ("voice.granted", "voice.used")
        ]
        return asked.VoiceFile(standing, claims, gone, tuple(rows))

    def uses(self, _: Asker, question: asked.ListUses) -> tuple[Use, ...]:
        """Raises as `show` does."""
        return tuple(usage.uses(self._office.books, self._known(question.handle).voice_id, question.since))

    def export(self, _: Asker, question: asked.ExportVoice) -> asked.ProofFile:
        """Raises as `show` does, and as `Registrar.listen`."""
        office = self._office
        self._known(question.handle)
        sounds = None
        if question.act is not None:
            sounds = office.registrar.listen(question.handle, question.act)
        made = bundle.export(office, self._known(question.handle), sounds)
        return asked.ProofFile(bundle.dump(made).encode())

    def consent_of_call(self, _: Asker, question: asked.AskConsentOfCall) -> ConsentOfCall:
        """A missing link is part of the answer. Raises `LedgerError` for what is not a call's JSON."""
        try:
            return consent_of(self._office, question.call)
        except (ValueError, TypeError, OverflowError) as error:  # of a field that somebody wrote
            raise LedgerError(f"no call's JSON: {error}") from None

    def checks(self, _: Asker, __: asked.ListChecks) -> dict[str, str]:
        """Raises `RegistrationError` for a mistake in `checks.toml`."""
        loaded = self._rooms.load_checks()
        found = {"speaker": loaded.speaker, "recogniser": loaded.recogniser, "classifier": loaded.classifier}
        return {
            name: f"none: {loaded.missing[name]}" if instrument is None else instrument.name
            for name, instrument in found.items()
        }

    # ── the ledger, the operators, the keys ──────────────────────────────────────────────────────────

    def prove(self, _: Asker, question: asked.ProveLedger) -> Proof:
        """Raises `LedgerError` for a head or keys that are none."""
        office = self._office
        trusted = None if question.keys is None else _public(question.keys)
        heads = [*office.books.seen, *office.heads.heads()]
        if question.head is not None:
            verifier = GrantVerifier(trusted or office.keys.public)
            try:
                heads = [head_of(verifier.claims(question.head, HEAD_TYP))]
            except GrantRefused:
                raise LedgerError(
                    "this is no ledger head signed with these keys, or its key was revoked"
                ) from None
        revoked = None if question.revoked is None else _public(question.revoked)
        return office.books.prove(heads, {**trusted, **(revoked or {})} if trusted else None, revoked)

    def head(self, _: Asker, __: asked.SignHead) -> str:
        """Raises `LedgerError`."""
        return self._office.books.head()

    def rows(self, _: Asker, question: asked.ListRows) -> tuple[Row, ...]:
        """Raises `LedgerError`."""
        return tuple(
            self._office.books.rows(
                kinds=question.kinds,
                since_ms=question.since_ms,
                after=question.after,
                most=asked.ROWS,
                proved=True,
            )
        )

    def identity(self, _: Asker, __: asked.AskIdentity) -> str:
        """Raises `LedgerError`."""
        return self._office.identity

    def resume_terms(self, _: Asker, question: asked.AskResumeTerms) -> dict[str, Any]:
        """Raises `LedgerError`."""
        return dict(self._office.resume_terms(list(question.lost)))

    def lost_rows(self, _: Asker, __: asked.AskLostRows) -> tuple[dict[str, Any], ...]:
        """Raises `LedgerError`."""
        return tuple(self._office.heads.given_up())

    def clock(self, _: Asker, __: asked.AskClock) -> float:
        """Seconds since the epoch."""
        return self._office.clock()

    def tip(self, _: Asker, __: asked.AskTip) -> str:
        """Raises `LedgerError`."""
        self._office.look()
        return self._office.books.tip[1]

    def set_clock(self, _: Asker, question: asked.SetClock) -> int:
        """Raises as `ConsentOffice.set_clock` does."""
        return self._office.set_clock(question.reason, question.act).seq

    def resume(self, _: Asker, question: asked.ResumeLedger) -> tuple[str, ...]:
        """Raises as `ConsentOffice.resume_ledger` does."""
        return tuple(self._office.resume_ledger(question.reason, question.act))

    def operators(self, _: Asker, __: asked.ListOperators) -> tuple[OperatorStanding, ...]:
        """Raises `LedgerError`."""
        return tuple(self._office.look().operators.values())

    def add_operator(self, _: Asker, question: asked.AddOperator) -> None:
        """Raises as `OperatorDesk.add` does."""
        desk = OperatorDesk(self._office.books)
        desk.add(question.name, question.role, question.public, question.act)

    def revoke_operator(self, _: Asker, question: asked.RevokeOperator) -> None:
        """Raises as `OperatorDesk.revoke` does."""
        OperatorDesk(self._office.books).revoke(question.name, question.reason, question.act)

    def next_key(self, _: Asker, question: asked.AskNextKey) -> dict[str, Any]:
        """Raises `LedgerError`, `VaultError`."""
        office = self._office
        rotation = Rotation(office.books, office.vault)
        about = rotation.next_signing() if question.which == "signing" else rotation.next_master()
        self._rotations.keep(str(about["kid"]), rotation)
        return about

    def rotate(self, _: Asker, question: asked.RotateKey) -> str:
        """Raises as `Rotation` does."""
        rotation = self._rotations.of(question.kid)
        if rotation is None:
            raise OperatorError("this key does not wait for an act any more; rotate again")
        self._rotations.forget(question.kid)
        if question.which == "signing":
            return rotation.signing(question.act)
        return str(rotation.master(question.act))

    def revoke_key(self, _: Asker, question: asked.RevokeKey) -> None:
        """Raises as `Rotation.revoke` does."""
        office = self._office
        Rotation(office.books, office.vault).revoke(
            question.kid, question.since, question.reason, question.act
        )

    def backup(self, _: Asker, question: asked.MakeBackup) -> asked.SealedBackup:
        """Raises `VaultError`, `LedgerError`."""
        sealed, rows = backup.seal(self._office, question.passphrase)
        return asked.SealedBackup(sealed, rows)

    def restore(self, _: Asker, question: asked.RestoreBackup) -> int:
        """Raises `VaultError` for a wrong passphrase, or a database with consent in it."""
        place = self._rooms.place
        return backup.restore_from(question.sealed, question.passphrase, place.sql_url, place.consent_dir)


def _recording(clip: asked.ClipFile) -> Recording:
    name = clip.name if clip.name.isprintable() else repr(clip.name)
    return decode(clip.wav, name[:80])


def _public(keys: dict[str, str]) -> dict[str, Any]:
    try:
        return dict(public_keys(keys))
    except (ValueError, TypeError):
        raise LedgerError("these are no public keys") from None
