"""A browser's offer (SDP): whether a web line can answer it, and what of it the line needs to know."""

from __future__ import annotations

from typing import Final

from aiortc import RTCRtpTransceiver
from aiortc.sdp import SessionDescription

from gateway.errors import VoicegateError

KEYS: Final = "audio/telephone-event"


class OfferError(VoicegateError):
    """A browser's offer cannot be answered; the text says what is wrong with it."""


def check(offer: str) -> None:
    """Raises `OfferError` for an offer that aiortc would stumble over, or that holds no call."""
    description = SessionDescription.parse(offer)
    kinds = [media.kind for media in description.media]
    if kinds.count("audio") != 1 or not set(kinds) <= {"audio", "application"}:
        raise OfferError("it must hold one audio section, and no video")
    if not all(media.dtls and media.dtls.fingerprints for media in description.media):
        raise OfferError("it has no DTLS fingerprint")
    mids = {media.rtp.muxId for media in description.media}
    if any(not set(group.items) <= mids for group in description.group if group.semantic == "BUNDLE"):
        raise OfferError("it bundles sections that it does not hold")


def same_call(offer: str, before: str) -> None:
    """Raises `OfferError` for a later offer of other sections than the call began with."""
    new, old = (
        [(media.kind, media.rtp.muxId) for media in SessionDescription.parse(sdp).media]
        for sdp in (offer, before)
    )
    if new != old:
        raise OfferError("it has other sections than the call has")


def key_types(audio: RTCRtpTransceiver) -> frozenset[int]:
    keys = (codec for codec in audio._codecs if codec.mimeType.lower() == KEYS)
    return frozenset(codec.payloadType for codec in keys if codec.payloadType is not None)


def speak_opus(audio: RTCRtpTransceiver) -> None:
    """Opus first: aiortc sends by the first codec of an offer that it knows. Raises `OfferError`."""
    audio._codecs.sort(key=lambda codec: codec.mimeType.lower() == KEYS)
    if audio._codecs[0].mimeType.lower() == KEYS:
        raise OfferError("it offers no Opus")


def ice_of(offer: str) -> tuple[str, str]:
    """Its ICE name and password."""
    ice = SessionDescription.parse(offer).media[0].ice
    return ("", "") if ice is None else (ice.usernameFragment or "", ice.password or "")
