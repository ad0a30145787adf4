"""G.729 where the machine has it: heard, concealed, the last resort; where it has none, it is not offered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gateway.config import bcg729
from gateway.edge.grammar import sdp
from gateway.rtp import line_plan
from gateway.rtp.agreement import Describer
from gateway.rtp.payloads.g729 import G729Decoder, G729Encoder
from tests.gateway.rtp.test_agreement import SESSION
from tests.needs import missing

FRAME = 160
SAID = (6_000 * np.sin(np.arange(50 * FRAME) * 2 * np.pi * 400 / 8_000)).astype("<i2").tobytes()


@pytest.fixture
def _there() -> None:
    if bcg729.library() is None:
        missing(f"G.729 needs bcg729: apt-get install {bcg729.PACKAGE}")


def packets() -> list[bytes]:
    encoder = G729Encoder()
    return [encoder.encode(SAID[at : at + 2 * FRAME]) for at in range(0, len(SAID), 2 * FRAME)]


@pytest.mark.usefixtures("_there")
def test_a_tone_comes_through_in_twenty_bytes_a_packet() -> None:
    said = packets()
    assert {len(packet) for packet in said} == {20}
    decoder = G729Decoder()
    heard = np.concatenate([decoder.decode(packet) for packet in said])[10 * FRAME :].astype(float)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * 8_000 / len(heard) == pytest.approx(400, abs=10)


@pytest.mark.usefixtures("_there")
def test_what_is_lost_goes_on_and_what_is_rubbish_breaks_nothing() -> None:
    decoder = G729Decoder()
    for packet in packets()[:20]:
        decoder.decode(packet)
    assert np.abs(decoder.conceal(FRAME)).max() > 500
    assert len(decoder.conceal(0)) == 80
    for length in (1, 2, 9, 11, 12, 32, 300, 1_400):
        heard = decoder.decode(bytes(range(256)) * 6 if length > 256 else bytes(range(length)))
        assert 80 <= len(heard) <= 24 * 80
    with pytest.raises(ValueError, match="do not make whole units"):
        G729Encoder().encode(bytes(100))


OFFER = SESSION + "m=audio 4000 RTP/AVP 18 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"


@pytest.mark.usefixtures("_there")
def test_it_is_the_last_resort() -> None:
    assert sdp.offered_codecs(OFFER.encode()) == ("PCMU", "G729")
    only = OFFER.replace("18 0 101", "18 101")
    text, agreed = Describer("127.0.0.1", 4_000, line_plan.CODECS["narrow"], 1).answer(only)
    assert (agreed.codec, agreed.packet_ms) == ("G729", 20)
    assert "a=rtpmap:18 G729/8000\r\n" in text
    assert "a=fmtp:18 annexb=no\r\n" in text
    assert Describer("127.0.0.1", 4_000, line_plan.CODECS["narrow"], 1).answer(OFFER)[1].codec == "PCMU"


@pytest.fixture
def _without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(bcg729, "library", lambda: None)
        patched.setattr(sdp, "_OURS", sdp._ours())
        yield


@pytest.mark.usefixtures("_without")
def test_without_the_library_it_is_no_codec_of_ours() -> None:
    assert sdp.offered_codecs(OFFER.encode()) == ("PCMU",)
    assert sdp.offered_codecs(OFFER.replace("18 0", "18").encode()) == ()
    with pytest.raises(RuntimeError, match="libbcg729-0 is not installed"):
        G729Decoder()
