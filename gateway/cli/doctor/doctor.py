"""`voicegate doctor`: tries what the gateway needs on this machine, and says how to fix what is wrong.

Its other checks stand in `gateway.cli.doctor.doctor_libraries` and `gateway.cli.doctor.doctor_stores`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Final

import click

from consent.errors import ConsentError
from gateway.cli.doctor.diagnosis import Diagnosis, State, ok
from gateway.cli.doctor.doctor_certificate import certificate, trunk_certificates
from gateway.cli.doctor.doctor_chat_server import chat_server
from gateway.cli.doctor.doctor_libraries import chroma, models, speech, telephones
from gateway.cli.doctor.doctor_servers import collector, provider
from gateway.cli.doctor.doctor_stores import office, redis, sql, watermark_keys, witnesses
from gateway.cli.house.consented_languages import unconsented
from gateway.cli.house.house_state import house_state, telephone_states, trunk_states
from gateway.cli.house.office_command import known_names
from gateway.config.house_languages import why_no_languages, why_unwritten
from gateway.config.paths import dialplan_dir, trunks_path, webhooks_path
from gateway.config.ports import Port, all_ports
from gateway.config.runtime import Runtime, runtime_for
from gateway.config.settings import Settings, load
from gateway.dialplan import Dialplan
from gateway.dialplan.house_plan import read_house_plan
from gateway.dialplan.target_address import TrunkTarget, UserTarget, target_address
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.errors import RpcError, VoicegateError
from gateway.front.events.webhook_file import read_webhooks
from gateway.ipc.binding import Binding
from gateway.run.preflight import check_rtp
from gateway.store.registry import Registry
from gateway.store.sip_bindings import SipBindings
from gateway.store.sip_users import SipUsers

OPEN_FILES: Final = 1024
"""A hall holds a WebSocket per call and a line some sockets per call; below this a busy gateway runs out."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array on stdout.")
def doctor(as_json: bool) -> None:
    """Check this machine and say how to fix what is wrong.

    Ends with status 1 when something fails; a warning does not count.
    """
    findings: list[Diagnosis] = []
    for finding in examine(load()):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.state:>4}  {finding.what}: {finding.text}")
            if finding.fix:
                click.echo(f"      → {finding.fix}")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    sys.exit(any(finding.state == "fail" for finding in findings))


def examine(settings: Settings) -> Iterator[Diagnosis]:
    """All diagnoses, each as soon as it is known. A check that breaks is a failed one, not an error."""
    checks: tuple[Callable[[Settings], Iterator[Diagnosis]], ...] = (
        data_dir,
        gateway_and_ports,
        access,
        certificate,
        dialplans,
        trunks,
        receivers,
        collector,
        provider,
        registered,
        telephones,
        speech,
        models,
        chroma,
        chat_server,
        redis,
        sql,
        watermark_keys,
        witnesses,
        office,
        limits,
    )
    for check in checks:
        try:
            yield from check(settings)
        except VoicegateError as error:
            yield Diagnosis(check.__name__.replace("_", " "), "fail", str(error), "fix what it names")


def data_dir(settings: Settings) -> Iterator[Diagnosis]:
    """Looks whether the data directory can be written, by its owner alone."""
    path = settings.data_dir
    if not path.exists():
        parent = next(above for above in path.parents if above.exists())
        if os.access(parent, os.W_OK):
            yield ok("data directory", f"{path} will be made at the first start")
        else:
            fix = f"make it and give it to this user, or set VOICEGATE_DATA_DIR (now {path})"
            yield Diagnosis("data directory", "fail", f"{parent} cannot be written", fix)
        return
    status = path.stat()
    if not os.access(path, os.W_OK | os.X_OK):
        yield Diagnosis("data directory", "fail", f"{path} cannot be written", f"chown {os.getuid()} {path}")
    elif status.st_uid != os.getuid() or status.st_mode & 0o077:
        yield Diagnosis("data directory", "warn", f"others may look into {path}", f"chmod 700 {path}")
    else:
        yield ok("data directory", str(path))


def gateway_and_ports(settings: Settings) -> Iterator[Diagnosis]:
    """Asks a gateway that runs how it is, and tries every port."""
    runtime = runtime_for(settings.data_dir)
    ours = runtime.held()
    if ours:
        yield _state_of(runtime)
    else:
        yield ok("gateway", "does not run")
    for port in all_ports(settings):
        yield _port(port, settings.host, ours=ours)


def _port(port: Port, host: str, *, ours: bool) -> Diagnosis:
    name, place = f"{port.what} port", f"{host}:{port.number}"
    try:
        port.bind(host).close()
    except OSError as error:
        if ours and error.errno == errno.EADDRINUSE:
            return ok(name, f"{place} is held by the running gateway")
        return Diagnosis(name, "fail", *port.refusal(host, error).split("; ", 1))
    if ours:
        return Diagnosis(
            name, "fail", f"the running gateway does not hold {place}", "see its log; restart it"
        )
    return ok(name, f"{place} is free")


def _state_of(runtime: Runtime) -> Diagnosis:
    try:
        state = house_state(runtime)
    except RpcError as error:
        return Diagnosis("gateway", "warn", f"runs, but its front does not answer: {error}", "see its log")
    missing = [f"{part} ({how})" for part, how in state.parts.items() if how != "ready"]
    if missing:
        return Diagnosis("gateway", "warn", f"runs, but not all of it: {', '.join(missing)}", "see its log")
    if state.busy:
        fix = "more cores or halls, or fewer lines; docs/operations.md, When there is no time"
        return Diagnosis("gateway", "warn", f"runs, and has no time for a call more: {state.busy}", fix)
    return ok("gateway", f"runs, {state.calls} calls")


def access(settings: Settings) -> Iterator[Diagnosis]:
    """Looks who may call."""
    if settings.local_only:
        yield ok("access", f"only this machine can reach {settings.host}")
    elif not settings.digest:
        fix = "unset VOICEGATE_SIP_AUTH, and add users: voicegate sip user add NAME"
        state: State = "ok" if settings.sip_allow else "warn"
        text = f"anybody from {', '.join(settings.sip_allow) or 'anywhere'} may call {settings.host}"
        yield Diagnosis("access", state, text, fix if state == "warn" else "")
    else:
        names = SipUsers(settings.data_dir).names()
        yield ok("access", f"digest; users: {', '.join(names) or 'the first start makes one'}")


def dialplans(settings: Settings) -> Iterator[Diagnosis]:
    """Loads the dialplans in force."""
    try:
        voices = None
        with contextlib.suppress(ConsentError):  # what the database says, `sql` finds
            voices = known_names(settings)
        plan = read_house_plan(settings, voices)
    except VoicegateError as error:
        yield Diagnosis(
            "dialplans", "fail", str(error), "edit that line; `voicegate dialplan check` tries again"
        )
    else:
        yield ok("dialplans", f"{plan.folder}: {', '.join(route.name for route in plan.routes)}")
        if plan.hears_languages and (why := why_no_languages(settings)) is not None:
            yield Diagnosis("callers' languages", "warn", "nobody is led by theirs", why)
        yield from _transcripts(plan, settings)
        for route, text in unconsented(plan, voices or (), settings):
            fix = "register the voice for that language, or give the route another voice or language"
            yield Diagnosis("consent to languages", "warn", f"{route.name}: {text}", fix)


def trunks(settings: Settings) -> Iterator[Diagnosis]:
    """Reads the file of trunks, looks whether each target's is there, and asks a gateway how they are."""
    file = trunks_path(settings)
    try:
        found = read_trunks(file)
    except VoicegateError as error:
        yield Diagnosis("trunks", "fail", str(error), "edit that line")
        return
    known = {trunk.name for trunk in found}
    with contextlib.suppress(VoicegateError):  # what is wrong with the plans, `dialplans` says
        for name, where in Dialplan.load(dialplan_dir(settings), None).targets.items():
            address = target_address(where)
            if isinstance(address, TrunkTarget) and address.trunk not in known:
                fix = f"add [[trunk]] with that name to {file}, or change the target"
                yield Diagnosis("trunks", "fail", f"target {name}: no trunk {address.trunk}", fix)
    for trunk in found:
        if not trunk.prefixes:
            fix = f'name the prefixes that may be called, such as prefixes = ["+49"], in {file}'
            yield Diagnosis(f"trunk {trunk.name}", "warn", "no call can leave: it has no prefixes", fix)
        yield from trunk_certificates(trunk, asks=bool(settings.sip_tls))
    for state in trunk_states(settings):
        fix = f"`voicegate trunk test {state.name}` says at which step"
        if state.why is not None:
            yield Diagnosis(f"trunk {state.name}", "warn", f"down: {state.why}", fix)
        else:
            yield ok(f"trunk {state.name}", "up")


def receivers(settings: Settings) -> Iterator[Diagnosis]:
    """Reads the file of webhooks, and looks whether mail of messages has a relay."""
    try:
        found = read_webhooks(webhooks_path(settings))
    except VoicegateError as error:
        yield Diagnosis("webhooks", "fail", str(error), "edit that line")
        return
    if found:
        names = ", ".join(webhook.name for webhook in found)
        yield ok("webhooks", f"{names}; `voicegate webhook test NAME` tries one")
    if settings.mail_relay is not None and settings.mail_from is None:
        fix = "set VOICEGATE_MAIL_FROM to the address that the mail is from"
        yield Diagnosis("mail", "fail", "there is a relay, and nobody whom its mail is from", fix)


def registered(settings: Settings) -> Iterator[Diagnosis]:
    """Looks whose telephones are registered, and whether those are that a plan hands callers to."""
    what = "registered telephones"
    if not settings.registered_most_s:
        yield ok(what, "none may register (VOICEGATE_REGISTERED_MOST_S=0)")
        return
    users: set[str] = set()
    bindings: list[Binding] = []
    targets: dict[str, str] = {}
    with contextlib.suppress(VoicegateError):  # what is wrong with them, `access`, `sql` and `dialplans` say
        users = set(SipUsers(settings.data_dir).names())
        registry = Registry.read(settings.sql)
        bindings = [] if registry is None else SipBindings(registry).listed()
        targets = Dialplan.load(dialplan_dir(settings), None).targets
    mine = [one for one in bindings if one.user in users]
    silent = {(one.user, one.key) for one in telephone_states(settings) if one.there is False}
    gone = [one for one in mine if one.lost_at is not None or (one.user, one.key) in silent]
    reached = {one.user for one in mine if one not in gone}
    lost = len(gone)
    unreachable = f", {lost} not reachable" if lost else ""
    whose = f": {', '.join(sorted(reached))}" if reached else ""
    yield ok(what, f"{len(mine)} of {len(users)} users{unreachable}{whose}")
    for name, where in targets.items():
        address = target_address(where)
        if isinstance(address, UserTarget) and address.user not in users:
            fix = f"voicegate sip user add {address.user}, or change the target"
            yield Diagnosis(what, "fail", f"target {name}: there is no SIP user {address.user}", fix)
        elif isinstance(address, UserTarget) and address.user not in reached:
            fix = "`voicegate sip users` says who is"
            asked = address.user in {user for user, _ in silent}
            why = "has no telephone that answers" if asked else "is not registered"
            yield Diagnosis(what, "warn", f"target {name}: {address.user} {why}", fix)


def _transcripts(plan: Dialplan, settings: Settings) -> Iterator[Diagnosis]:
    """Looks whether somebody can write down what callers say, where routes keep it."""
    what = "transcripts"
    keeps = {
        route.name: why_unwritten(settings, route.language) for route in plan.routes if route.keep.transcript
    }
    unless = " unless the engine does" if settings.engine_url else ""
    for why in dict.fromkeys(why for why in keeps.values() if why is not None):
        names = ", ".join(name for name, missing in keeps.items() if missing == why)
        yield Diagnosis(what, "warn", f"nobody writes down what callers of {names} say{unless}", why)
    if keeps and not any(keeps.values()):
        yield ok(what, f"what callers of {', '.join(keeps)} say is written down")


def limits(settings: Settings) -> Iterator[Diagnosis]:
    """Looks at what the system allows: open files, and ports for RTP."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        yield Diagnosis("open files", "warn", f"ulimit -n is {soft}", f"ulimit -n {4 * OPEN_FILES}")
    else:
        yield ok("open files", f"ulimit -n is {soft}")
    if not runtime_for(settings.data_dir).held():
        check_rtp(settings)
