"""`voicegate watermark`: mark and detect in files, keys, a plot, and the public detector."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Final

import click
import numpy as np

from watermark import sound
from watermark.detect import DETECTED, detect_recording
from watermark.errors import SoundError, WatermarkError
from watermark.keys import ENVELOPE_DB, ENVELOPE_LEAST_DB, ENVELOPE_MOST_DB, KeyRing, MarkKey
from watermark.mark import Marker

BY: Final = {
    None: "the carrier",
    "carrier": "the carrier",
    "envelope": "the envelope layer",
    "both": "both layers",
}
"""What found a mark, by `Detection.layer`."""
KEYS_HELP: Final = "The key file (voicegate watermark keygen makes one)."


class Payload(click.ParamType[int]):
    """16 hexadecimal digits."""

    name = "HEX16"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).lower().removeprefix("0x")
        if len(text) != 16 or any(digit not in "0123456789abcdef" for digit in text):
            self.fail(f"{value!r} is not 16 hexadecimal digits, such as 1a2b00c0ffee0001", param, ctx)
        return int(text, 16)


class Said(click.Group):
    """Says our own errors in one line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except WatermarkError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Said)
def watermark() -> None:
    """Mark and detect in files; keys; the public detector."""


_depth = click.option(
    "--envelope-db",
    type=click.FloatRange(ENVELOPE_LEAST_DB, ENVELOPE_MOST_DB),
    default=ENVELOPE_DB,
    show_default=True,
    help="How far bands of the speech swell and sink: more is found in shorter excerpts, and heard sooner.",
)


@watermark.command()
@click.argument("path", type=click.Path(path_type=Path))
@_depth
def keygen(path: Path, envelope_db: float) -> None:
    """Make a key file with one new key, readable by you only."""
    click.echo(f"{path}: {KeyRing.create(path, envelope_db).current.id}")


@watermark.command()
@click.argument("path", type=click.Path(path_type=Path))
@_depth
def rotate(path: Path, envelope_db: float) -> None:
    """Add a new key, which marks from now on; the older ones still detect."""
    ring = KeyRing.load(path).rotate(path, envelope_db)
    click.echo(f"{path}: {ring.current.id} marks now; {len(ring.keys)} keys detect")


def _marking_key(ring: KeyRing, payload: int) -> MarkKey:
    """The key whose gateway id the payload carries, else the newest."""
    return next((key for key in reversed(ring.keys) if key.gateway == payload >> 48), ring.current)


@watermark.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--keys", "keys_path", type=click.Path(path_type=Path), required=True, help=KEYS_HELP)
@click.option("--payload", type=Payload(), required=True, help="The 64 bits it will carry.")
def mark(source: Path, target: Path, keys_path: Path, payload: int) -> None:
    """Mark SOURCE.wav (mono, a rate that is a multiple of 100 Hz, 8 kHz or more) into TARGET.wav."""
    ring = KeyRing.load(keys_path)
    recording = sound.read(source)
    if len(recording.channels) != 1:
        raise SoundError(
            f"{source} has {len(recording.channels)} channels and one call has one voice: split it first, "
            f"with ffmpeg -i {source} -ac 1 MONO.wav"
        )
    marker = Marker(_marking_key(ring, payload), payload, recording.rate_hz)
    (samples,) = recording.channels
    frames = [marker.mark(samples).samples] if len(samples) else []
    marked = np.concatenate((*frames, marker.flush().samples))[marker.delay_samples :]
    sound.write(target, marked, recording.rate_hz)
    click.echo(f"{target}: {recording.seconds:.2f} s marked with {payload:016x}")


def _asked(payload: int | None) -> tuple[int, ...]:
    return () if payload is None else (payload,)


@watermark.command("detect")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--keys", "keys_path", type=click.Path(path_type=Path), required=True, help=KEYS_HELP)
@click.option("--payload", type=Payload(), help="Verify: is it this call?")
@click.option("--speeds/--no-speeds", default=True, help="Also look at speeds up to 1 % off (slower).")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was found.")
def detect_command(source: Path, keys_path: Path, payload: int | None, speeds: bool, as_json: bool) -> None:
    """Look for our mark in SOURCE.wav: is it ours, and which call's?"""
    found = detect_recording(
        sound.read(source), KeyRing.load(keys_path), payloads=_asked(payload), speeds=speeds
    )
    if as_json:
        click.echo(json.dumps(found.as_json()))
    elif not found.detected:
        whose = "of this call" if payload is not None else "of these keys"
        click.echo(f"no mark {whose} was found (p = {found.p_value:.2g}, {DETECTED:g} is needed)")
    else:
        named = "unreadable payload" if found.payload is None else f"payload {found.payload:016x}"
        where = "" if found.call_s is None else f", {found.call_s:.2f} s into the call"
        by = BY[found.layer]
        click.echo(f"ours: {named}, key {found.key_id}, p = {found.p_value:.2g}{where}, by {by}")


@watermark.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--keys", "keys_path", type=click.Path(path_type=Path), required=True, help=KEYS_HELP)
@click.option("--payload", type=Payload(), help="Verify: is it this call?")
def plot(source: Path, target: Path, keys_path: Path, payload: int | None) -> None:
    """Draw the score of each second over the spectrogram of SOURCE.wav into TARGET.png."""
    from watermark.plot import draw

    recording = sound.read(source)
    found = detect_recording(recording, KeyRing.load(keys_path), payloads=_asked(payload))
    draw(target, recording, found)
    by = f", by {BY[found.layer]}" if found.detected else ""
    click.echo(f"{target}: score {found.score:.1f}, p = {found.p_value:.2g}{by}")


@watermark.command()
@click.option("--keys", "keys_path", type=click.Path(path_type=Path), required=True, help=KEYS_HELP)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8091, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    help="A reverse proxy whose X-Forwarded-For holds: address or network.",
)
def serve(keys_path: Path, host: str, port: int, proxies: tuple[str, ...]) -> None:
    """Run the public detector: a page and POST /detect, which answer yes, no or unsure."""
    import uvicorn

    from watermark.public import app

    KeyRing.load(keys_path)  # fails here, not in the first request
    try:
        detector = app(keys_path, proxies=proxies)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--proxy") from None
    config = uvicorn.Config(
        detector,
        log_level="warning",
        log_config=None,
        server_header=False,
        proxy_headers=False,  # whom to believe is said by --proxy
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # uvicorn's own would leave IPv4 out of "::"
    with socket.create_server((host, port), family=family, dualstack_ipv6=host == "::") as listener:
        uvicorn.Server(config).run([listener])
