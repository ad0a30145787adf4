"""A number for help is known however it is written."""

from __future__ import annotations

import pytest

from gateway.config.emergency import EMERGENCY, is_emergency


@pytest.mark.parametrize(
    "called",
    [
        "112", "+112", "1-1-2", "sip:112@192.0.2.1", "sips:+911@host:5061;transport=tls", "tel:999",
        "tel:+1-1-0", "tel:112;phone-context=+49", "sip:112;phone-context=+49@host;user=phone",
        "SIP:%31%31%32@host", "sip:112:secret@host", "<sip:112@host>", "urn:service:sos",
        "URN:SERVICE:SOS.fire", "urn:service:sos;x=y",
        " 112 ",
        "trunk:carrier/112", "trunk:carrier/+911", "\uff11\uff11\uff12", "++112",
        "sip:(112)@host", "sip:112?Priority=emergency@host", "sip:%2B112@host",
    ],
)  # fmt: skip
def test_it_is_one(called: str) -> None:
    assert is_emergency(called, EMERGENCY)


@pytest.mark.parametrize(
    "called",
    ["1120", "0112", "sip:demo@112", "sip:host", "demo", "", "sip:11@2", "+49112", "urn:service:counseling",
     "urn:service:sosh", "sip:a112@host", "116117", "tel:", "sip:@", "<>"],
)  # fmt: skip
def test_it_is_none(called: str) -> None:
    assert not is_emergency(called, EMERGENCY)


def test_a_house_may_have_others_or_none() -> None:
    assert is_emergency("sip:000@host", ("000",))
    assert not is_emergency("sip:112@host", ("000",))
    assert not is_emergency("urn:service:sos", ())
