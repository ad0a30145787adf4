"""What the office does for operators about voices: changes by a signed act, looks for whoever may ask."""

from __future__ import annotations

import secrets
from typing import Final

from consent.checks.checklist import Finding
from consent.checks.sound import Recording, decode
from consent.errors import ConsentError, LedgerError, RegistrationError
from consent.ledger.standing import VoiceStanding
from consent.office import usage
from consent.office.blocklist import Blocklist
from consent.office.office import ConsentOffice
from consent.office.record import Reference
from consent.office.registration import Draft
from consent.office.submission import Submission
from consent.office.usage import Use
from consent.office.withdrawal import Withdrawals
from consent.proof import bundle
from consent.proof.evidence import ConsentOfCall, consent_of
from consent.service import voice_questions as asked
from consent.service.office_rooms import OfficeRooms
from consent.service.office_server import Answered, Asker
from consent.service.remembered import Remembered

DRAFTS: Final = 8
"""Registrations that wait for their second act; of more than these the oldest has to begin again."""


class VoiceCounter:
    """Answers the questions of `consent.service.voice_questions`."""

    def __init__(self, rooms: OfficeRooms) -> None:
        self._rooms = rooms
        self._drafts: Remembered[Draft] = Remembered(DRAFTS)

    @property
    def _office(self) -> ConsentOffice:
        return self._rooms.office()

    @property
    def answers(self) -> list[Answered]:
        """What may be asked here."""
        return [
            Answered(asked.IssueChallenge, self.challenge),
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
        ]

    # ── a voice's way in ─────────────────────────────────────────────────────────────────────────────────

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
        """Raises as `ReviewDesk.listen` does."""
        sounds = self._office.reviews.listen(question.handle, question.act)
        return asked.HeardVoice(sounds["statement"].tobytes(), sounds["reference"].tobytes())

    def review(self, _: Asker, question: asked.ReviewVoice) -> str:
        """Raises as `ReviewDesk.review` does."""
        return self._office.reviews.review(question.handle, question.act)

    # ── its way out ──────────────────────────────────────────────────────────────────────────────────────

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

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────

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
            for voice in (office.stock.voice, *office.all_voices())
        )

    def show(self, _: Asker, question: asked.ShowVoice) -> asked.VoiceFile:
        """Raises `RegistrationError` for a name that nobody has, `LedgerError`."""
        office, standing = self._office, self._known(question.handle)
        claims, gone = None, ""
        try:
            claims = dict(office.records.open(standing).claims)
        except ConsentError as error:
            gone = str(error)
        rows = [
            row
            for row in office.books.reader.rows(subject=standing.voice_id)
            if row.kind not in ("voice.granted", "voice.used")
        ]
        return asked.VoiceFile(standing, claims, gone, tuple(rows))

    def uses(self, _: Asker, question: asked.ListUses) -> tuple[Use, ...]:
        """Raises as `show` does."""
        return tuple(usage.uses(self._office.books, self._known(question.handle).voice_id, question.since))

    def export(self, _: Asker, question: asked.ExportVoice) -> asked.ProofFile:
        """Raises as `show` does, and as `ReviewDesk.listen`."""
        office = self._office
        self._known(question.handle)
        sounds = None
        if question.act is not None:
            sounds = office.reviews.listen(question.handle, question.act)
        made = bundle.export(office, self._known(question.handle), sounds)
        return asked.ProofFile(bundle.dump(made).encode())

    def consent_of_call(self, _: Asker, question: asked.AskConsentOfCall) -> ConsentOfCall:
        """A missing link is part of the answer. Raises `LedgerError` for what is not a call's JSON."""
        try:
            return consent_of(self._office, question.call)
        except (ValueError, TypeError, OverflowError) as error:  # of a field that somebody wrote
            raise LedgerError(f"this is not a call's JSON: {error}") from None

    def checks(self, _: Asker, __: asked.ListChecks) -> dict[str, str]:
        """Raises `RegistrationError` for a mistake in `checks.toml`."""
        loaded = self._rooms.load_checks()
        found = {"speaker": loaded.speaker, "recogniser": loaded.recogniser, "classifier": loaded.classifier}
        return {
            name: f"none: {loaded.missing[name]}" if instrument is None else instrument.name
            for name, instrument in found.items()
        }


def _recording(clip: asked.ClipFile) -> Recording:
    name = clip.name if clip.name.isprintable() else repr(clip.name)
    return decode(clip.wav, name[:80])
