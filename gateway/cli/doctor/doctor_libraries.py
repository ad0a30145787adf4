"""What the doctor looks at of native libraries and models: telephones, speech, the engine.

Libraries are tried by `gateway.cli.doctor.doctor_probes`, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

from consent.errors import ModelFileError, ModelFileMissing
from consent.models.model_files import locked_models
from gateway.cli.doctor.diagnosis import Diagnosis, State, ok
from gateway.config import bcg729, gpu, remedy
from gateway.config.paths import model_files_dir
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.run.preflight import check_checkpoint, check_lines

PROBE_S: Final = 60.0


def probe(name: str, timeout_s: float = PROBE_S) -> dict[str, Any]:
    """Runs one of `gateway.cli.doctor.doctor_probes` in a process of its own."""
    argv = [sys.executable, "-m", "gateway.cli.doctor.doctor_probes", name]
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


def telephones(settings: Settings) -> Iterator[Diagnosis]:
    """Says how many calls telephones can have, and tries what of that is somebody else's."""
    check_lines(settings)
    processes, narrow, wide = settings.sip_processes, settings.narrow_calls, settings.wide_calls
    total = processes * (narrow + wide)
    held = f"{processes} processes, each with {narrow} calls at 8 kHz and {wide} at 16 kHz: {total} calls"
    yield ok("SIP lines", held)
    answer = probe("g722")
    if (answer.get("bytes"), answer.get("samples")) == (160, 320):
        found = ", G729" if bcg729.library() is not None else f" (G729 with apt-get install {bcg729.PACKAGE})"
        yield ok("codecs", f"PCMU, PCMA, G722, opus{found}")
    elif "bytes" in answer:
        fix = f"install it again ({remedy.install_again()})"
        yield Diagnosis("codecs", "fail", "FFmpeg's G722 makes frames of another length", fix)
    else:
        yield _broken("codecs", answer)
    answer = probe("pjsua2")
    if "version" in answer:
        yield ok("test phone", f"pjsua2 {answer['version']}")
    else:
        broken = _broken("test phone", answer)
        yield Diagnosis("test phone", "warn", f"{broken.text}: no `voicegate call`", broken.fix)


def speech(settings: Settings) -> Iterator[Diagnosis]:
    """Tries voice activity and the embedded engine."""
    answer = probe("vad")
    yield (
        ok("voice activity", "Silero's network loads")
        if "likely" in answer
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
        yield ok("embedded engine", "it spoke, and its recognisers load")


def models(settings: Settings) -> Iterator[Diagnosis]:
    """Looks at the model files that can be fetched."""
    directory = model_files_dir(settings)
    for model in locked_models().values():
        if model.tests:
            continue
        what = f"model file {model.name}"
        fix = f"voicegate models get {model.name}"
        try:
            model.check(directory)
        except ModelFileMissing:
            yield Diagnosis(what, "warn", f"not fetched: {model.what}", fix)
        except ModelFileError as error:
            yield Diagnosis(what, "fail", str(error), fix)
        else:
            yield ok(what, str(model.paths(directory)[0]))


def _gpu() -> Iterator[Diagnosis]:
    """What Chroma needs besides torch where it runs on a GPU."""
    what = "Chroma on a GPU"
    lacks = [Diagnosis(what, "fail", lack.what, lack.remedy) for lack in gpu.lacking()]
    driver = gpu.driver()
    known = "of an unknown version" if driver is None else gpu.dotted(driver)
    yield from lacks or [ok(what, f"NVIDIA driver {known}, C compiler {gpu.compiler()}")]


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
    if gpu.wanted(settings.chroma_device):
        yield from _gpu()
    try:
        check_checkpoint(settings.chroma)
    except StartError as error:
        yield Diagnosis("Chroma checkpoint", "fail", *str(error).split("; ", 1))
    else:
        yield ok("Chroma checkpoint", f"{settings.chroma} (a hub's is not looked at)")
