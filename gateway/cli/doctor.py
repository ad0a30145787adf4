"""`voicegate doctor`: tries what the gateway needs on this machine, and says how to fix what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import click
from redis import Redis
from redis.exceptions import RedisError

from consent.errors import ConsentError, ModelFileError, ModelFileMissing, OfficeAway
from consent.grants.scope import STOCK
from consent.ledger.head_keeper import UNWITNESSED
from consent.ledger.witness import Outside
from consent.models.model_files import model_files
from consent.service.front_questions import AskLedger
from consent.service.office_client import OfficeClient
from consent.service.office_door import keys_readable_by
from consent.service.operator_questions import AskFacts
from gateway.cli.office_command import asked_office, known_names
from gateway.config import remedy
from gateway.config.paths import dialplan_dir, grant_keys_path, model_files_dir, office_socket
from gateway.config.ports import Port, all_ports
from gateway.config.runtime import Runtime, runtime_for
from gateway.config.settings import Settings, load
from gateway.dialplan import Dialplan
from gateway.errors import RpcError, StartError, VoicegateError
from gateway.ipc.front_messages import AskState, HouseState
from gateway.ipc.hello import Hello
from gateway.run import redis_server
from gateway.run.preflight import check_checkpoint, check_rtp
from gateway.store.registry import Registry
from gateway.store.sip_users import SipUsers

PROBE_S: Final = 60.0
CALLS_PER_LINE: Final = 4
OPEN_FILES: Final = 1024
"""A hall holds a WebSocket per call and a line some sockets per call; below this a busy gateway runs out."""
WANTED_CODECS: Final = ("PCMU/8000", "PCMA/8000", "G722/16000")

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at; `fix` says what to do, and is empty when all is well."""

    what: str
    state: State
    text: str
    fix: str = ""


def ok(what: str, text: str) -> Diagnosis:
    """The diagnosis of a thing that is as it should be."""
    return Diagnosis(what, "ok", text)


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
        dialplans,
        sip_library,
        speech,
        models,
        chroma,
        redis,
        sql,
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


def running(runtime: Runtime) -> bool:
    """Whether a gateway holds this runtime directory."""
    try:
        with runtime.lock.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def gateway_and_ports(settings: Settings) -> Iterator[Diagnosis]:
    """Asks a gateway that runs how it is, and tries every port."""
    runtime = runtime_for(settings.data_dir)
    ours = running(runtime)
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
    async def ask() -> HouseState:
        from gateway.ipc import rpc

        peer = await rpc.connect(runtime.front, Hello("doctor", "doctor", runtime.token()))
        try:
            return await peer.ask(AskState())
        finally:
            peer.close()

    try:
        state = asyncio.run(ask())
    except RpcError as error:
        return Diagnosis("gateway", "warn", f"runs, but its front does not answer: {error}", "see its log")
    missing = [f"{part} ({how})" for part, how in state.parts.items() if how != "ready"]
    if missing:
        return Diagnosis("gateway", "warn", f"runs, but not all of it: {', '.join(missing)}", "see its log")
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
        folder = dialplan_dir(settings)
        voices = None
        with contextlib.suppress(ConsentError):  # what the database says, `sql` finds
            voices = known_names(settings)
        plan = Dialplan.load(folder, voices)
    except VoicegateError as error:
        yield Diagnosis(
            "dialplans", "fail", str(error), "edit that line; `voicegate dialplan check` tries again"
        )
    else:
        yield ok("dialplans", f"{folder}: {', '.join(route.name for route in plan.routes)}")


def probe(name: str, timeout_s: float = PROBE_S) -> dict[str, Any]:
    """Runs one of `gateway.cli.doctor_probes` in a process of its own."""
    argv = [sys.executable, "-m", "gateway.cli.doctor_probes", name]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout_s, check=False)  # noqa: S603 - ours
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout_s:g} s"}
    except ValueError:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        last = words[-1] if words else "it said nothing"
        return {"error": f"its process ended with status {done.returncode}: {last}"}
    return answer


def _broken(what: str, answer: dict[str, Any]) -> Diagnosis:
    if "missing" in answer:
        return Diagnosis(
            what, "fail", f"the package {answer['missing']} is not installed", remedy.install_again()
        )
    fix = f"install it again ({remedy.install_again()}); it needs Linux on x86-64 and CPython 3.11 or 3.12"
    return Diagnosis(what, "fail", str(answer["error"]), fix)


def sip_library(settings: Settings) -> Iterator[Diagnosis]:
    """Has pjsua2 tell its codecs and how many calls a process holds."""
    answer = probe("pjsua2")
    if "calls" not in answer:
        yield _broken("pjsua2", answer)
        return
    lines = settings.narrow_lines + settings.wide_lines
    if answer["calls"] < CALLS_PER_LINE:
        fix = f"this build holds fewer calls than a line's {CALLS_PER_LINE}; use the pinned wheel"
        yield Diagnosis("pjsua2", "fail", f"{answer['calls']} calls per process", fix)
    else:
        total = CALLS_PER_LINE * lines
        held = f"{answer['calls']} calls per process, {lines} lines: {total} calls"
        yield ok("pjsua2", f"{answer['version']}; {held}")
    absent = [codec for codec in WANTED_CODECS if codec not in answer["codecs"]]
    if absent:
        yield Diagnosis("codecs", "fail", f"pjsua2 lacks {', '.join(absent)}", "use the pinned wheel")
    else:
        yield ok("codecs", ", ".join(WANTED_CODECS))


def speech(settings: Settings) -> Iterator[Diagnosis]:
    """Tries voice activity and the embedded engine."""
    answer = probe("vad")
    yield (
        ok("voice activity", "Silero's network loads")
        if "inputs" in answer
        else _broken("voice activity", answer)
    )
    answer = probe("embedded")
    if "seconds" not in answer:
        yield _broken("embedded engine", answer)
    elif answer["seconds"] < 0.1:
        yield Diagnosis(
            "embedded engine", "fail", "it said nothing", f"install it again ({remedy.install_again()})"
        )
    else:
        yield ok("embedded engine", "it spoke, and its recogniser's model loads")


def models(settings: Settings) -> Iterator[Diagnosis]:
    """Looks at the model files that can be fetched."""
    directory = model_files_dir(settings)
    for model in model_files().values():
        what = f"model file {model.name}"
        fix = f"voicegate models get {model.name}"
        try:
            model.read(directory)
        except ModelFileMissing:
            yield Diagnosis(what, "warn", f"not fetched: {model.what}", fix)
        except ModelFileError as error:
            yield Diagnosis(what, "fail", str(error), fix)
        else:
            yield ok(what, str(directory / model.file_name))


def chroma(settings: Settings) -> Iterator[Diagnosis]:
    """Looks at the device and the checkpoint of a Chroma engine, where the settings name one."""
    if settings.engine != "chroma" and settings.chroma is None:
        return
    what = "Chroma engine"
    if importlib.util.find_spec("torch") is None:
        yield Diagnosis(what, "fail", "torch is not installed", remedy.install_with("chroma"))
        return
    answer = probe("torch")
    if "device" not in answer:
        yield _broken(what, answer)
        return
    state: State = "ok" if answer["device"] != "CPU only" else "warn"
    fix = (
        ""
        if state == "ok"
        else "without a GPU it is many times slower than speech; use VOICEGATE_ENGINE=embedded"
    )
    yield Diagnosis(what, state, f"torch {answer['version']} on {answer['device']}", fix)
    try:
        check_checkpoint(settings.chroma)
    except StartError as error:
        yield Diagnosis("Chroma checkpoint", "fail", *str(error).split("; ", 1))
    else:
        yield ok("Chroma checkpoint", f"{settings.chroma} (a hub's is not looked at)")


def redis(settings: Settings) -> Iterator[Diagnosis]:
    """Asks the Redis in force, or starts the embedded one to see that it can be."""
    runtime = runtime_for(settings.data_dir)
    if settings.redis_url is not None:
        yield from _redis_at(
            settings.redis_url, "start it, or unset VOICEGATE_REDIS_URL to use the embedded one"
        )
    elif running(runtime):
        yield from _redis_at(f"unix://{runtime.redis}", "see redis/valkey.log in the data directory")
    else:
        yield _embedded_redis()


def _redis_at(url: str, fix: str) -> Iterator[Diagnosis]:
    try:
        client: Any = Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, decode_responses=True)
    except ValueError as error:
        yield Diagnosis("Redis", "fail", str(error), "VOICEGATE_REDIS_URL is redis://, rediss:// or unix://")
        return
    try:
        info = client.info()
    except (RedisError, OSError) as error:
        yield Diagnosis("Redis", "fail", f"does not answer: {error}", fix)
        return
    finally:
        client.close()
    version = info.get("valkey_version") or info.get("redis_version")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        fix = "set its maxmemory-policy to noeviction or volatile-ttl"
        yield Diagnosis("Redis", "warn", f"{version} forgets living calls when full ({policy})", fix)
    elif not info.get("aof_enabled"):
        yield Diagnosis("Redis", "warn", f"{version} keeps no append-only file", "set its appendonly to yes")
    else:
        yield ok("Redis", f"{version}, append-only file on")


def _embedded_redis() -> Diagnosis:
    """Starts the embedded Valkey in a directory of its own, asks it, and ends it."""
    what = "Redis"
    with tempfile.TemporaryDirectory(prefix="vg-doctor-") as folder:
        path = Path(folder, "redis.sock")
        argv = redis_server.command(path, Path(folder))
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(argv, stdout=log, stderr=log)  # noqa: S603 - our own binary
        try:
            version = redis_server.wait_until_up(path, lambda: server.poll() is None)
            return ok(what, f"embedded Valkey {version} starts")
        except VoicegateError as error:
            return Diagnosis(
                what, "fail", str(error), "set VOICEGATE_REDIS_URL to a Redis or Valkey of your own"
            )
        finally:
            server.terminate()
            server.wait(5)


def sql(settings: Settings) -> Iterator[Diagnosis]:
    """Opens the registry, if there is one."""
    what = "SQL"
    if settings.sql_url is None and not (settings.data_dir / "voicegate.db").exists():
        yield ok(what, "SQLite; the first start makes it")
        return
    try:
        registry = Registry.open(settings.sql)
    except VoicegateError as error:
        yield Diagnosis(what, "fail", str(error), "start the database, or fix VOICEGATE_SQL_URL")
        return
    try:
        calls = registry.count()
    finally:
        registry.close()
    yield ok(what, f"{registry.backend}, {calls} calls entered")


def witnesses(settings: Settings) -> Iterator[Diagnosis]:
    """Asks who keeps the consent ledger's head outside, and whether they have seen more than is here."""
    what = "ledger's witness"
    outside = Outside(settings.redis_url, settings.ledger_witness)
    try:
        if outside == Outside():
            persons = known_names(settings) - {STOCK}
            fix = "set VOICEGATE_LEDGER_WITNESS (a URL elsewhere), or VOICEGATE_REDIS_URL (a Redis of yours)"
            yield Diagnosis(what, "warn", UNWITNESSED, fix) if persons else ok(what, UNWITNESSED)
        elif settings.office_socket is None and not grant_keys_path(settings).exists():
            yield ok(what, "the first start tells it of the ledger")
        else:
            with asked_office(settings) as client:
                ledger = client.ask(AskLedger())
            state, doubt = ledger.state, ledger.doubt
            yield Diagnosis(what, "warn", state, "see docs/consent.md, Restore") if doubt else ok(what, state)
    except ConsentError as error:
        yield Diagnosis(what, "fail", str(error), "fix what it names")


def office(settings: Settings) -> Iterator[Diagnosis]:
    """Looks who serves the consent office, and who can therefore read its keys."""
    what = "consent office"
    client = OfficeClient(office_socket(settings), back_s=0.0)
    try:
        facts = client.ask(AskFacts())
    except OfficeAway as error:
        if settings.office_socket is not None:
            fix = "start its service, or unset VOICEGATE_OFFICE_SOCKET: then the gateway runs it"
            yield Diagnosis(what, "fail", str(error), fix)
        else:
            mine = os.getuid()
            yield ok(what, f"it begins with the gateway; it {keys_readable_by(mine, mine)}")
    else:
        yield ok(what, keys_readable_by(facts.user, facts.gateway))
    finally:
        client.close()


def limits(settings: Settings) -> Iterator[Diagnosis]:
    """Looks at what the system allows: open files, and ports for RTP."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        yield Diagnosis("open files", "warn", f"ulimit -n is {soft}", f"ulimit -n {4 * OPEN_FILES}")
    else:
        yield ok("open files", f"ulimit -n is {soft}")
    if not running(runtime_for(settings.data_dir)):
        check_rtp(settings)
