"""`voicegate voice`, the other half: list, show, usage, export; the checks, the blocklist, keys."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import click

from consent.checks.sound import decode, read_file
from consent.commands.house import House, Signer, in_house, read_secret, signed
from consent.commands.voice_commands import echo_json, known, since, voice
from consent.errors import GrantRefused, LedgerError, OperatorError, RegistrationError
from consent.grants.grant import read_public_keys
from consent.office import backup, usage
from consent.office.record import agreed
from consent.proof import bundle, evidence, vcon
from consent.service.asked_ledger import evidence_of, vcon_of_call
from consent.service.operator_questions import (
    AskIdentity,
    AskNextKey,
    ListOperators,
    MakeBackup,
    RestoreBackup,
    RevokeKey,
    RotateKey,
)
from consent.service.voice_questions import (
    BlockSpeaker,
    ClipFile,
    ExportVoice,
    ListChecks,
    ListUses,
    ListVoices,
)


@voice.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@in_house
def list_(house: House, as_json: bool) -> None:
    """List the voices."""
    with house.office() as office:
        voices = office.ask(ListVoices())
    if as_json:
        echo_json({"voices": [{"name": v.name, "state": v.state, "stock": v.stock} for v in voices]})
        return
    for each in voices:
        click.echo(f"{each.name:<24} {'stock' if each.stock else each.state}")


@voice.command()
@click.argument("handle")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@in_house
def show(house: House, handle: str, as_json: bool) -> None:
    """Show HANDLE: whose voice, for what, until when, how it was checked, what happened since."""
    with house.office() as office:
        file = known(office, handle)
    standing = file.standing
    claims: dict[str, Any] = {"gone": file.gone} if file.claims is None else file.claims
    history: list[dict[str, Any]] = [
        {"row": row.seq, "at": row.at_ms / 1000, "what": row.kind, "body": row.table} for row in file.rows
    ]
    if as_json:
        echo_json({"handle": handle, "state": standing.state, "record": claims, "history": history})
        return
    click.echo(f"{handle}: {standing.state} {standing.reason}".rstrip())
    if "gone" in claims:
        click.echo(f"  {claims['gone']}")
    else:
        until = f"{datetime.fromtimestamp(claims['exp'] - 1):%Y-%m-%d}"
        click.echo(f"  {claims['name']} for {claims['company']}: {agreed(claims)}")
        click.echo(f"  in {', '.join(claims['languages'])}; {', '.join(claims['dialplans']) or 'any route'}")
        click.echo(f"  until {until}; registered by {claims['registrar']}")
        for check in claims["checks"]:
            click.echo(f"  {check['verdict']:<8} {check['check']}: {check['detail']}")
    for entry in history:
        by = entry["body"].get("by") or entry["body"].get("registrar") or ""
        click.echo(
            f"  {datetime.fromtimestamp(entry['at']):%Y-%m-%d %H:%M:%S}  {entry['what']} {by}".rstrip()
        )


@voice.command("usage")
@click.argument("handle")
@click.option(
    "--since", "from_when", default="30d", show_default=True, callback=since, help="A day, or 30d, 12h."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@in_house
def usage_(house: House, handle: str, from_when: float, as_json: bool) -> None:
    """Where HANDLE was used: calls, seconds spoken, dialplans."""
    with house.office() as office:
        found = list(office.ask(ListUses(handle, from_when)))
    total = usage.total(found)
    if as_json:
        echo_json({"calls": total.calls, "seconds": total.seconds, "uses": [use.to_json() for use in found]})
        return
    click.echo(f"{handle}: {total.calls} calls, {total.seconds:.0f} s spoken")
    for plan, (calls, seconds) in total.by_dialplan.items():
        click.echo(f"  {plan:<24} {calls:>6} calls {seconds:>9.0f} s")
    for use in found:
        spoken = "" if use.seconds is None else f"{use.seconds:.0f} s"
        when = f"{datetime.fromtimestamp(use.at):%Y-%m-%d %H:%M:%S}"
        click.echo(f"  {when}  {use.call_id}  {use.purpose} in {use.dialplan}  {spoken}".rstrip())


@voice.command("export")
@click.argument("handle")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--with-sound", is_flag=True, help="With the statement and the reference; needs --as.")
@click.option("--vcon", "as_vcon", is_flag=True, help="As a vCon, for programs that read conversations.")
@click.option("--as", "acting", metavar="OPERATOR", help="Which operator takes the sounds out.")
@click.option("--key", "key_path", type=click.Path(path_type=Path), help="The operator's key file.")
@click.option("--passphrase-from", type=click.Path(path_type=Path), help="File with its passphrase.")
@in_house
def export_(
    house: House,
    handle: str,
    out: Path,
    with_sound: bool,
    as_vcon: bool,
    acting: str | None,
    key_path: Path | None,
    passphrase_from: Path | None,
) -> None:
    """Write HANDLE's proof to a file that verifies with the public key alone."""
    with house.office() as office:
        voice_id = known(office, handle).standing.voice_id
        act = None
        if with_sound:
            if acting is None:
                raise OperatorError("who takes the sounds out? --as OPERATOR")
            key = Signer.of(acting, key_path, passphrase_from).key()
            act = key.act("listen", time.time(), office.ask(AskIdentity()), voice_id=voice_id)
        text = office.ask(ExportVoice(handle, act)).text.decode()
    _write(out, vcon.dump(vcon.of_voice(json.loads(text))) if as_vcon else text)
    click.echo(f"{out}; check it anywhere with: voicegate voice check {out} --keys grant-keys.json")


@voice.command("evidence")
@click.argument("call_file", type=click.File())
@click.option("--out", type=click.Path(path_type=Path), help="Write the page here; else to stdout.")
@click.option("--json", "as_json", is_flag=True, help="The chain as one JSON object.")
@click.option("--vcon", "as_vcon", is_flag=True, help="The chain and each voice's proof as a vCon.")
@in_house
def evidence_(house: House, call_file: IO[str], out: Path | None, as_json: bool, as_vcon: bool) -> None:
    """Show the chain from a call to the consent behind its voice, on one page to print.

    The call's facts are JSON, as `voicegate calls show ID --json` prints them; "-" reads them from stdin.
    """
    try:
        table = json.load(call_file)
        call = dict(table.get("registry") or table)
    except (ValueError, TypeError, AttributeError):
        raise LedgerError(
            f"{call_file.name} is not a call's JSON; see: voicegate calls show ID --json"
        ) from None
    with house.office() as office, house.calls() as calls:
        try:
            found = evidence_of(office, call, keys=house.mark_keys(), calls=calls)
            shown = vcon.dump(vcon_of_call(office, call, found)) if as_vcon else evidence.page(found)
        except (ValueError, TypeError, OverflowError) as error:  # of a field that somebody wrote
            raise LedgerError(f"{call_file.name} is not a call's JSON: {error}") from None
    if as_json:
        echo_json(found.to_json())
    elif out is None:
        click.echo(shown)
    else:
        _write(out, shown)


def _write(out: Path, text: str) -> None:
    """Raises `LedgerError`."""
    try:
        out.touch(mode=0o600)
        out.write_text(text)
    except OSError as error:
        raise LedgerError(f"{out}: {error.strerror}") from None


@voice.command()
@click.argument("bundle_file", type=click.Path(path_type=Path))
@click.option("--keys", required=True, type=click.Path(path_type=Path), help="The office's public keys.")
def check(bundle_file: Path, keys: Path) -> None:
    """Verify an exported proof or vCon, offline, with the public keys alone."""
    try:
        content = json.loads(bundle_file.read_text())
        trusted, revoked = read_public_keys(keys), read_public_keys(keys, revoked=True)
        if "attachments" in content:
            proved = vcon.prove(content, trusted, revoked)
        else:
            proved = vcon.Proved((bundle.verify(content, trusted, revoked),), ())
    except (OSError, ValueError, TypeError) as error:
        raise LedgerError(f"{bundle_file}: {error}") from None
    except GrantRefused as error:
        raise LedgerError(str(error)) from None
    for found in proved.voices:
        _tell(found)
    for row in proved.rows:
        body = row.table
        at = f"{datetime.fromtimestamp(row.at_ms / 1000):%Y-%m-%d %H:%M:%S}"
        click.echo(f"proved: ledger row {row.seq}, {at}: {row.kind} {body['jti']} for call {body['call']}")


def _tell(found: bundle.Verified) -> None:
    claims = found.record.claims
    click.echo(f"proved: {claims['name']} consented to {claims['company']} for {agreed(claims)}")
    as_of = f"{datetime.fromtimestamp(found.as_of):%Y-%m-%d %H:%M}"
    reviews = ", ".join(found.reviews) or "none"
    click.echo(f"  as {found.record.handle}, {found.state} as of {as_of}; reviews: {reviews}")
    for line in found.void:
        click.echo(f"  {line}", err=True)


@voice.command()
@in_house
def checks(house: House) -> None:
    """Show which checks are in force here."""
    with house.office() as office:
        for name, state in office.ask(ListChecks()).items():
            click.echo(f"{name:<12} {state}")
    click.echo("own watermark is always looked for; sound, copies and time are always checked")


@voice.command()
@click.argument("label")
@click.option("--sample", type=click.Path(path_type=Path), help="A recording of the person to block.")
@click.option("--lift", is_flag=True, help="Take them off the list.")
@signed
@in_house
def block(house: House, label: str, sample: Path | None, lift: bool, signer: Signer) -> None:
    """Never take the voice of a person (LABEL), known by a sample of it."""
    if lift == (sample is not None):
        raise RegistrationError("blocked", "give either --sample FILE or --lift")
    about: dict[str, Any] = {"label": label, "lift": lift}
    clip = None
    if sample is not None:
        clip = ClipFile(sample.name, read_file(sample))
        about["sample"] = decode(clip.wav, clip.name).sha256
    with house.office() as office:
        act = signer.key().act("block", time.time(), office.ask(AskIdentity()), **about)
        office.ask(BlockSpeaker(label, clip, act))
    click.echo(f"{label} is {'off' if lift else 'on'} the list")


@voice.command()
@click.argument("which", type=click.Choice(["signing", "master"]))
@signed
@in_house
def rotate(house: House, which: Literal["signing", "master"], signer: Signer) -> None:
    """Put a new signing or master key in force."""
    with house.office() as office:
        about = office.ask(AskNextKey(which))
        act = signer.key().act("rotate", time.time(), office.ask(AskIdentity()), **about)
        done = office.ask(RotateKey(which, str(about["kid"]), act))
    if which == "signing":
        click.echo(f"the office signs with {done} from now on")
    else:
        click.echo(f"{done} keys are wrapped with a new master; make a backup now")


@voice.command("revoke-key")
@click.argument("kid")
@click.option(
    "--since", "from_when", required=True, callback=since, help="When it was stolen: a day, or 30d, 12h."
)
@click.option("--reason", required=True, help="Why; it stands in the ledger.")
@signed
@in_house
def revoke_key(house: House, kid: str, from_when: float, reason: str, signer: Signer) -> None:
    """Declare the signing key KID stolen: nothing that it signs counts any more. Rotate first."""
    with house.office() as office:
        about = {"kid": kid, "since_ms": round(from_when * 1000)}
        act = signer.key().act("revoke-key", time.time(), office.ask(AskIdentity()), **about)
        office.ask(RevokeKey(kid, from_when, reason, act))
    click.echo(f"{kid} is revoked; bring grant-keys.json to every machine that keeps a copy of it")


@voice.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--passphrase-from", type=click.Path(path_type=Path), help="File with the backup's passphrase.")
@in_house
def backup_(house: House, file: Path, passphrase_from: Path | None) -> None:
    """Write all of consent, keys included, to one sealed FILE."""
    passphrase = read_secret(passphrase_from, "Passphrase of the backup", confirm=True)
    with house.office() as office:
        made = office.ask(MakeBackup(passphrase))
    backup.keep(file, made.sealed)
    click.echo(f"{file}: {made.rows} rows and the keys")


@voice.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--passphrase-from", type=click.Path(path_type=Path), help="File with the backup's passphrase.")
@in_house
def restore(house: House, file: Path, passphrase_from: Path | None) -> None:
    """Fill an empty database from a backup FILE; then `voicegate ledger resume`, if this host asks for it."""
    passphrase = read_secret(passphrase_from, "Passphrase of the backup")
    sealed = backup.kept(file)
    with house.office() as office:
        rows = office.ask(RestoreBackup(sealed, passphrase))
        click.echo(f"{rows} rows restored")
        try:
            office.ask(ListOperators())
        except LedgerError as error:
            click.echo(str(error), err=True)
