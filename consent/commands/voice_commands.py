"""`voicegate voice`: from the challenge to the deletion of a voice."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from consent.checks.checklist import Checks
from consent.checks.sound import decode, read_file, wav_bytes
from consent.commands.house import House, Signer, in_house, read_secret, signed
from consent.errors import OperatorError, RegistrationError, VaultError
from consent.office.record import Reference
from consent.office.submission import Submission
from consent.office.withdrawal import Receipt
from consent.service.front_questions import TidyVoices
from consent.service.office_client import OfficeClient
from consent.service.operator_questions import AskIdentity
from consent.service.voice_questions import (
    ClipFile,
    ConfirmVoice,
    EraseVoice,
    ExaminedVoice,
    ExamineVoice,
    HeardVoice,
    IssueChallenge,
    ListenToVoice,
    ReviewVoice,
    ShowVoice,
    VoiceFile,
    WithdrawVoice,
)
from consent.statements.statement import Terms


@click.group()
def voice() -> None:
    """Register, list, revoke and erase voices."""


def known(office: OfficeClient, handle: str) -> VoiceFile:
    """The newest voice of that name. Raises `RegistrationError`."""
    return office.ask(ShowVoice(handle))


# ── coming in ────────────────────────────────────────────────────────────────────────────────────────────


@voice.command()
@click.option("--name", required=True, help="Whose voice it is, as they say it.")
@click.option("--company", required=True, help="Who will use it.")
@click.option(
    "--purpose",
    "purposes",
    required=True,
    multiple=True,
    help='A word, or support="answering questions about orders"; again for more.',
)
@click.option("--languages", default="en", show_default=True, help="In which languages, by commas.")
@click.option("--until", required=True, type=click.DateTime(["%Y-%m-%d"]), help="The last day.")
@click.option("--dialplan", "dialplans", multiple=True, help="Only in these routes; else in all.")
@click.option("--spoken", default="en", show_default=True, help="Language the statement is read in.")
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(1, 24 * 60 * 7))
@click.option("--by-phone", is_flag=True, help="It may be answered in a call, by dialling its number.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@signed
@in_house
def challenge(
    house: House,
    name: str,
    company: str,
    purposes: tuple[str, ...],
    languages: str,
    until: datetime,
    dialplans: tuple[str, ...],
    spoken: str,
    minutes: float,
    by_phone: bool,
    as_json: bool,
    signer: Signer,
) -> None:
    """Issue a statement to be read aloud, with words and numbers that expire."""
    named = [part.partition("=") for part in purposes]
    uses = tuple((purpose, use) for purpose, described, use in named if described)
    spoken_in = tuple(part.strip() for part in languages.split(",") if part.strip())
    words = tuple(purpose for purpose, _, _ in named)
    terms = Terms(name, company, words, spoken_in, until.date(), dialplans, spoken, uses)
    terms.check(datetime.now(UTC).date())
    with house.office() as office:
        salt = secrets.token_hex(16)
        act = signer.key().act(
            "challenge", time.time(), office.ask(AskIdentity()), terms=terms.hash(salt), by_phone=by_phone
        )
        issued = office.ask(IssueChallenge(terms, act, salt, by_phone, minutes * 60))
    if as_json:
        click.echo(json.dumps({
            "challenge": issued.challenge_id, "text": issued.text, "expires_at": issued.expires_at,
        }))  # fmt: skip
        return
    click.echo(f"challenge {issued.challenge_id}, until {_clock(issued.expires_at)}; to be read aloud:\n")
    click.echo(f"  {issued.text}\n")


@voice.command()
@click.argument("handle")
@click.option("--reference", "references", required=True, multiple=True, type=click.Path(path_type=Path))
@click.option("--reference-text", "texts", required=True, multiple=True, help="The words spoken in it.")
@click.option(
    "--statement", required=True, type=click.Path(path_type=Path), help="The statement, read aloud."
)
@click.option("--challenge", "challenge_id", required=True, help="The challenge's number.")
@click.option(
    "--pin-from", type=click.Path(path_type=Path), help="File with the owner's PIN (6 to 12 digits)."
)
@click.option("--adult", is_flag=True, help="I attest that the speaker is of age and the person named.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@signed
@in_house
def register(
    house: House,
    handle: str,
    references: tuple[Path, ...],
    texts: tuple[str, ...],
    statement: Path,
    challenge_id: str,
    pin_from: Path | None,
    adult: bool,
    as_json: bool,
    signer: Signer,
) -> None:
    """Register HANDLE: check the recordings, and keep them for review."""
    if len(references) != len(texts):
        raise RegistrationError("reference", "give one --reference-text for each --reference, in order")
    pin = read_secret(pin_from, "PIN").decode("ascii", "replace") if pin_from else None
    clips = tuple(
        ClipFile(path.name, read_file(path), text) for path, text in zip(references, texts, strict=True)
    )
    spoken = ClipFile(statement.name, read_file(statement))
    submission = Submission(
        handle, tuple(Reference(decode(clip.wav, clip.name), clip.text) for clip in clips),
        decode(spoken.wav, spoken.name), challenge_id, adult, pin,
    )  # fmt: skip
    submission.check()
    with house.office() as office:
        key, identity = signer.key(), office.ask(AskIdentity())
        act = key.act("register", time.time(), identity, **submission.digest)
        question = ExamineVoice(handle, clips, spoken, challenge_id, adult, pin, act)
        found = office.ask(question) if as_json else _with_progress(office, question)
        confirmed = key.act("confirm", time.time(), identity, **found.about)
        done = office.ask(ConfirmVoice(found.draft, confirmed))
    if as_json:
        click.echo(json.dumps({
            "voice_id": done.voice_id, "handle": done.handle, "state": done.state,
            "checks": [finding.to_json() for finding in done.findings],
        }))  # fmt: skip
    else:
        passed = all(finding.verdict == "passed" for finding in done.findings)
        click.echo(
            f"{handle} needs review{', though every check passed' if passed else ''}: "
            "another operator listens and decides:\n"
            f"  voicegate voice review {handle} --listen FOLDER --as OPERATOR\n"
            f"  voicegate voice review {handle} --approve --as OPERATOR"
        )


def _with_progress(office: OfficeClient, question: ExamineVoice) -> ExaminedVoice:
    console = Console(stderr=True)
    colours = {"passed": "green", "review": "yellow", "refused": "red"}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("listening", total=Checks.COUNT)

        def told(finding: dict[str, str]) -> None:
            colour = colours[finding["verdict"]]
            bar.console.print(
                f"[{colour}]{finding['verdict']:<8}[/] {finding['check']:<18} ", end="", highlight=False
            )
            bar.console.print(finding["detail"], markup=False, highlight=False)
            bar.advance(task)

        return office.ask(question, told)


@voice.command()
@click.argument("handle")
@click.option(
    "--listen", type=click.Path(path_type=Path), help="Write statement and reference to this folder."
)
@click.option("--approve", "decision", flag_value="approve", help="It is this person, freely saying this.")
@click.option("--reject", "decision", flag_value="reject")
@click.option("--reason", default="", help="Why; it stands in the ledger.")
@click.option("--as", "acting", metavar="OPERATOR", help="Which operator signs this.")
@click.option("--key", "key_path", type=click.Path(path_type=Path), help="The operator's key file.")
@click.option("--passphrase-from", type=click.Path(path_type=Path), help="File with its passphrase.")
@in_house
def review(
    house: House,
    handle: str,
    listen: Path | None,
    decision: str | None,
    reason: str,
    acting: str | None,
    key_path: Path | None,
    passphrase_from: Path | None,
) -> None:
    """Listen to a registration, and then approve or reject it as another operator."""
    if listen is not None and decision is not None:
        raise OperatorError("listen first; then decide in a second command")
    with house.office() as office:
        file = known(office, handle)
        standing, claims = file.standing, file.claims
        if claims is None:
            raise VaultError(file.gone)
        if listen is None and decision is None:
            click.echo(f"{handle} is {standing.state}; registered by {standing.registrar}")
            click.echo(f"to be heard: {claims['statement']['text']}")
            for check in claims["checks"]:
                click.echo(f"  {check['verdict']:<8} {check['check']}: {check['detail']}")
            return
        if acting is None:
            raise OperatorError("who listens, or decides? --as OPERATOR")
        key = Signer.of(acting, key_path, passphrase_from).key()
        if listen is not None:
            act = key.act("listen", time.time(), office.ask(AskIdentity()), voice_id=standing.voice_id)
            _write_sounds(office.ask(ListenToVoice(handle, act)), handle, listen)
            return
        act = key.act(
            "review", time.time(), office.ask(AskIdentity()), voice_id=standing.voice_id,
            record_hash=standing.record_hash, decision=decision, reason=reason,
        )  # fmt: skip
        state = office.ask(ReviewVoice(handle, act))
    more = "; one more operator must hear it" if state == "pending" else ""
    click.echo(f"{handle} is {state}{more}")


def _write_sounds(heard: HeardVoice, handle: str, folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for kind in ("statement", "reference"):
            path = folder / f"{handle}-{kind}.wav"
            path.touch(mode=0o600)
            path.write_bytes(wav_bytes(np.frombuffer(getattr(heard, kind), "<f4")))
            click.echo(f"{path}: listen, then delete it")
    except OSError as error:
        raise RegistrationError("sound", f"{folder}: {error.strerror}") from None


# ── going out ────────────────────────────────────────────────────────────────────────────────────────────


@voice.command()
@click.argument("handle")
@click.option("--reason", required=True, help="Why; it stands in the ledger.")
@signed
@in_house
def revoke(house: House, handle: str, reason: str, signer: Signer) -> None:
    """Take HANDLE back: running calls fall silent in it within a second."""
    with house.office() as office:
        voice_id = known(office, handle).standing.voice_id
        act = signer.key().act("revoke", time.time(), office.ask(AskIdentity()), voice_id=voice_id)
        office.ask(WithdrawVoice(handle, reason, act))
    click.echo(f"{handle} is revoked")


@voice.command()
@click.argument("handle")
@click.option("--reason", required=True, help="Why; it stands in the ledger.")
@click.confirmation_option(prompt="This destroys the voice's key and sounds for good. Go on?")
@signed
@in_house
def erase(house: House, handle: str, reason: str, signer: Signer) -> None:
    """Destroy HANDLE's key, sounds and voiceprints; the ledger stays provable."""
    with house.office() as office:
        voice_id = known(office, handle).standing.voice_id
        act = signer.key().act("erase", time.time(), office.ask(AskIdentity()), voice_id=voice_id)
        erased = office.ask(EraseVoice(handle, reason, act))
    for line in receipt_lines(erased.receipt, handle, erased.folder):
        click.echo(line)


def receipt_lines(receipt: Receipt, handle: str, folder: Path) -> Iterator[str]:
    """What the operator reads of an erasure: what is gone, where it was looked for, and what is left."""
    yield f"{handle} is erased: {receipt.items} items; receipt: ledger row {receipt.seq} {receipt.hash}"
    if receipt.challenges:
        yield f"deleted: {receipt.challenges} unused challenges with the person's name"
    if not receipt.shredded:
        yield (
            "left: the database's log, which another program was reading; the gateway tries again within the "
            "hour, `voicegate voice tidy` at once"
        )
    if receipt.fingerprints and receipt.fingerprints_until is not None:
        until = datetime.fromtimestamp(receipt.fingerprints_until, UTC)
        yield (
            f"left: {receipt.fingerprints} fingerprints of its recordings, until {until:%Y-%m-%d}, so that "
            "nobody hands the recordings in again; nothing can be heard from them"
        )
    yield f"searched, every byte of {len(receipt.places)} files below {folder}:"
    for place in receipt.places:
        if place.unread:
            yield f"  {place.path}: NOT SEARCHED: {place.unread}"
        elif place.left:
            yield f"  {place.path}: left: {', '.join(place.left)}"
    if not any(place.left or place.unread for place in receipt.places):
        yield "  nothing is left there"
    yield (
        "not searched: a database or Redis outside that folder, backups, exported bundles, sounds written by "
        "--listen, other hosts' disks"
    )


@voice.command()
@in_house
def tidy(house: House) -> None:
    """Delete what is past its time: voiceprints, old fingerprints, registrations nobody decided on."""
    with house.office() as office:
        receipts = office.ask(TidyVoices())
    for receipt in receipts:
        click.echo(
            f"{receipt.voice_id}: {receipt.items} items; receipt: ledger row {receipt.seq} {receipt.hash}"
        )
    if not receipts:
        click.echo("nothing is due")


def since(_: click.Context, __: click.Parameter, text: str) -> float:
    """Seconds since the epoch of `2026-03-01`, `30d`, `12h`. Raises `click.BadParameter`."""
    now = datetime.now(UTC)
    if found := re.fullmatch(r"(\d{1,5})([dh])", text):
        span = timedelta(days=int(found[1])) if found[2] == "d" else timedelta(hours=int(found[1]))
        return (now - span).timestamp()
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a day like 2026-03-01 nor a span like 30d, 12h"
        ) from None


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


def echo_json(table: dict[str, Any]) -> None:
    """Prints one JSON object."""
    click.echo(json.dumps(table, ensure_ascii=False))
