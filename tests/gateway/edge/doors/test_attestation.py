"""STIR/SHAKEN: A, B or C where all of it is proven, and `none` for whatever else anybody may send."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.doors.attestation import Chain, SignedCalls
from gateway.edge.grammar.message import read
from gateway.edge.grammar.passport import LONGEST_IDENTITY, NoPassport, host_of, read_passport
from gateway.edge.grammar.sip_message import Request
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER
from tests.gateway.edge.stir import (
    CALLED,
    CALLER,
    ONE_NUMBER,
    PROVIDER,
    URL,
    CallSigner,
    StirAuthority,
    octets,
    part,
    pem,
)

FROM = f"<sip:+{CALLER}@carrier.example;user=phone>"
TO = f"<sip:+{CALLED}@us.example;user=phone>"
HOSTS = ("certificates.example", "other.example:8443")


def invite(*identities: str, said_from: str = FROM, to: str = TO, asserted: tuple[str, ...] = ()) -> Request:
    lines = (
        "INVITE sip:demo@us.example SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1",
        f"From: {said_from};tag=1",
        f"To: {to}",
        "Call-ID: 1",
        "CSeq: 1 INVITE",
        "Contact: <sip:a@192.0.2.1>",
        *(f"P-Asserted-Identity: {one}" for one in asserted),
        *(f"Identity: {one}" for one in identities),
        "Content-Length: 0",
    )
    request = read("\r\n".join((*lines, "", "")).encode())
    assert isinstance(request, Request)
    return request


@dataclass
class Trunk:
    """A house that trusts one authority, and knows its signer's certificate already."""

    authority: StirAuthority = field(default_factory=StirAuthority)
    asked: list[str] = field(default_factory=list)
    above: tuple[x509.Certificate, ...] = ()

    def __post_init__(self) -> None:
        self.signer = self.authority.signer()

    def judge(
        self, request: Request, *, by: CallSigner | None = None, trusted: bool = False, ahead_s: float = 0.0
    ) -> tuple[str, str]:
        chain: Chain = ((by or self.signer).certificate, *self.above)

        def chain_at(url: str) -> Chain:
            self.asked.append(url)
            return chain

        house = SignedCalls([self.authority.certificate], HOSTS, chain_at, lambda: time.time() + ahead_s)
        found = house.judge(request, trusted=trusted)
        return found.level, found.why


@pytest.fixture(scope="module")
def house() -> Trunk:
    return Trunk()


@pytest.mark.parametrize("level", ["A", "B", "C"])
def test_what_is_proven_is_as_it_was_signed(house: Trunk, level: str) -> None:
    assert house.judge(invite(house.signer.identity(level))) == (level, "")
    assert house.asked[-1] == URL


@pytest.mark.parametrize(
    ("said_from", "to"),
    [
        ("<tel:+1-215-555-1212>", "<tel:+1(215)5551213>"),
        (f"<sip:{CALLER}@carrier.example>", f"<sip:+{CALLED};npdi;rn=+12155550000@us.example>"),
        ("<tel:5551212;phone-context=+1215>", f"<sips:%2B{CALLED}@us.example>"),
    ],
)
def test_numbers_are_compared_as_numbers(house: Trunk, said_from: str, to: str) -> None:
    assert house.judge(invite(house.signer.identity(), said_from=said_from, to=to)) == ("A", "")


def swapped(text: str, at: int, new: Callable[[str], str]) -> str:
    """An Identity with one of its three parts made anew, and nothing signed again."""
    token, _, rest = text.partition(";")
    parts = token.split(".")
    parts[at] = new(parts[at])
    return f"{'.'.join(parts)};{rest}"


def in_hmac(signer: CallSigner) -> str:
    """HS256 with the certificate's public text for a secret: what fools who lets the header choose."""
    text = signer.identity(header={"alg": "HS256"}, more="").partition(";")[0].rpartition(".")[0]
    mac = hmac.digest(pem(signer.certificate), text.encode(), "sha256")
    return f"{text}.{octets(mac + mac)};info=<{URL}>"


def claimed(**claims: object) -> Callable[[CallSigner], str]:
    return lambda signer: signer.identity(claims=claims)


def headed(**header: object) -> Callable[[CallSigner], str]:
    return lambda signer: signer.identity(header=header, more="")


def twice(signer: CallSigner) -> str:
    """An object that says `attest` twice, well signed."""
    whole = (
        f'{{"attest":"C","attest":"A","dest":{{"tn":["{CALLED}"]}},"iat":{int(time.time())},'
        f'"orig":{{"tn":"{CALLER}"}},"origid":"x"}}'
    )
    text = (
        f"{part({'alg': 'ES256', 'ppt': 'shaken', 'typ': 'passport', 'x5u': URL})}.{octets(whole.encode())}"
    )
    return f"{text}.{signer.signature(text)};info=<{URL}>"


def not_canonical(text: str) -> str:
    """Base64 of 64 octets that ends in bits which nobody reads."""
    return text[:-1] + chr(ord(text[-1]) + 1)


FORGED: dict[str, tuple[Callable[[CallSigner], str], str]] = {
    "altered body": (
        lambda signer: swapped(
            signer.identity("C"), 1, lambda _: signer.identity("A", at=int(time.time()) - 1).split(".")[1]
        ),
        "signature does not verify",
    ),
    "altered header": (
        lambda signer: swapped(
            signer.identity(),
            0,
            lambda _: part({"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": URL, "a": 1}),
        ),
        "signature does not verify",
    ),
    "no signature": (
        lambda signer: swapped(signer.identity(), 2, lambda _: "A" * 86), "signature does not verify"
    ),
    "old": (lambda signer: signer.identity(at=int(time.time()) - 600), "signed too long ago"),
    "future": (lambda signer: signer.identity(at=int(time.time()) + 600), "signed in the future"),
    "other caller": (claimed(orig={"tn": "12155559999"}), "another caller's number"),
    "other called": (claimed(dest={"tn": ["12155559999"]}), "another called number"),
    "called by name": (claimed(dest={"uri": ["sip:demo@us.example"]}), "claims cannot be read"),
    "caller is no number": (claimed(orig={"tn": "demo"}), "claims name no telephone number"),
    "a list for a caller": (claimed(orig={"tn": [CALLER]}), "claims name no telephone number"),
    "many called": (claimed(dest={"tn": [CALLED] * 9}), "claims cannot be read"),
    "D": (claimed(attest="D"), "claims cannot be read"),
    "list of levels": (claimed(attest=["A"]), "claims cannot be read"),
    "time as text": (claimed(iat=str(int(time.time()))), "claims cannot be read"),
    "time as truth": (claimed(iat=True), "claims cannot be read"),
    "no origid": (claimed(origid=None), "claims cannot be read"),
    "twice": (twice, "Identity cannot be read"),
    "alg none": (headed(alg="none"), "another algorithm"),
    "alg of a parameter": (lambda signer: signer.identity(more=";alg=none"), "another algorithm"),
    "HS256": (in_hmac, "another algorithm"),
    "alg missing": (headed(alg=None), "another algorithm"),
    "another ppt": (lambda signer: signer.identity(header={"ppt": "div"}), "another extension"),
    "another type": (headed(typ="JWT"), "not a PASSporT"),
    "critical": (headed(crit=["b64"], b64=False), "not a PASSporT"),
    "other info": (
        lambda signer: signer.identity(info="https://certificates.example/b"), "two URLs of its certificate"
    ),
    "info twice": (lambda signer: signer.identity(more=f";info=<{URL}>"), "Identity cannot be read"),
    "no info": (
        lambda signer: signer.identity().partition(";")[0] + ";ppt=shaken", "two URLs of its certificate"
    ),
    "compact": (lambda signer: f"..{'A' * 86};info=<{URL}>;alg=ES256;ppt=shaken", "compact form"),
    "nonsense": (lambda signer: "shaken", "Identity cannot be read"),
    "two of one text": (
        lambda signer: swapped(signer.identity(), 2, not_canonical),
        "Identity cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(FORGED))
def test_what_is_not_proven_is_none(house: Trunk, what: str) -> None:
    forge, why = FORGED[what]
    assert house.judge(invite(forge(house.signer))) == ("none", why)


URLS = {
    "other host": "https://evil.example/acme.pem",
    "http": "http://certificates.example/acme.pem",
    "user": "https://certificates.example@evil.example/a",
    "user and password": "https://a:b@certificates.example/a",
    "backslash": "https://evil.example\\@certificates.example/a",
    "port": "https://certificates.example:8443/a",
    "no port of it": "https://other.example/a",
    "port twice": "https://certificates.example:443:8443/a",
    "empty port": "https://certificates.example:/a",
    "below it": "https://certificates.example.evil.example/a",
    "dot": "https://certificates.example./a",
    "fragment": "https://certificates.example/a#b",
    "capitals": "HTTPS://CERTIFICATES.EXAMPLE/a",
    "letters that look so": "https://certificat\u0435s.example/a",
    "blank": "https://certificates.example /a",
    "line": "https://certificates.example/a\r\nX: 1",
    "no path": "https://certificates.example",
    "address": "https://127.0.0.1/a",
    "long": "https://certificates.example/" + "a" * 512,
    "file": "file:///etc/passwd",
    "number": 7,
}


@pytest.mark.parametrize("what", list(URLS))
def test_nobody_is_asked_for_a_certificate_elsewhere(what: str) -> None:
    house = Trunk()
    identity = house.signer.identity(header={"x5u": URLS[what]}, info=URL if what == "line" else None)
    level, why = house.judge(invite(identity))
    assert level == "none"
    assert why
    assert not house.asked


def test_ports_count() -> None:
    assert host_of("https://a.example:443/x") == host_of("https://a.example/x?y=1") == "a.example"
    assert host_of("https://a.example:8443/x") == "a.example:8443"
    house = Trunk()
    url = "https://other.example:8443/a"
    assert house.judge(invite(house.signer.identity(header={"x5u": url}))) == ("A", "")


CERTIFICATES: dict[str, Callable[[StirAuthority], CallSigner]] = {
    "expired": lambda authority: authority.signer(days=-1.0),
    "of another authority": lambda authority: StirAuthority().signer(),
    "of a namesake's": lambda authority: StirAuthority("authority").signer(),
    "below one that is nobody's authority": lambda authority: StirAuthority(
        "between", authority, ca=False
    ).signer(),
    "with something critical": lambda authority: authority.signer(strange=True),
    "that must not sign": lambda authority: authority.signer(signs=False),
    "of the authority itself": lambda authority: CallSigner(authority.key, authority.certificate),
    "without codes": lambda authority: authority.signer(codes=None),
    "for a number": lambda authority: authority.signer(codes=ONE_NUMBER),
    "with an empty list": lambda authority: authority.signer(codes=b"\x30\x00"),
    "with a torn list": lambda authority: authority.signer(codes=b"\x30\x08\xa0\x06\x16\x04\x37\x30"),
    "with a code of no letters": lambda authority: authority.signer(codes=PROVIDER[:-1] + b"\0"),
    "of another curve": lambda authority: authority.signer(curve=ec.SECP384R1()),
}


@pytest.mark.parametrize("what", list(CERTIFICATES))
def test_a_certificate_is_of_a_company_that_the_operator_trusts(house: Trunk, what: str) -> None:
    signer = CERTIFICATES[what](house.authority)
    level, why = house.judge(invite(signer.identity()), by=signer)
    assert level == "none"
    assert why.startswith("certificate ")


def test_a_certificate_may_stand_below_another_one() -> None:
    root = StirAuthority()
    between = StirAuthority("between", root)
    signer = between.signer()
    known = Trunk(root, above=(between.certificate,))
    assert known.judge(invite(signer.identity()), by=signer) == ("A", "")
    assert Trunk(root).judge(invite(signer.identity()), by=signer)[0] == "none"
    assert Trunk(above=(between.certificate, root.certificate)).judge(invite(signer.identity()), by=signer)[
        0
    ] == ("none")
    for ca, certifies in ((False, True), (True, False)):
        nobody = StirAuthority("nobody's", root, ca=ca, certifies=certifies)
        signer = nobody.signer()
        assert (
            Trunk(root, above=(nobody.certificate,)).judge(invite(signer.identity()), by=signer)[0] == "none"
        )


def test_each_number_that_a_plan_may_go_by_must_be_signed(house: Trunk) -> None:
    mine, other = f"<tel:+{CALLER}>", "<tel:+12155559999>"
    signed = house.signer.identity()
    hidden = "<sip:anonymous@anonymous.invalid>"
    assert house.judge(invite(signed, asserted=(mine,)), trusted=True)[0] == "A"
    assert house.judge(invite(signed, asserted=(other,)), trusted=True)[0] == "none"
    assert house.judge(invite(signed, asserted=(mine, other)), trusted=True)[0] == "none"
    assert house.judge(invite(signed, asserted=("<",)), trusted=True)[0] == "none"
    assert house.judge(invite(signed, asserted=(other,)))[0] == "A"  # nobody hears a stranger's
    assert house.judge(invite(signed, said_from=hidden, asserted=(mine,)), trusted=True)[0] == "A"
    assert house.judge(invite(signed, said_from=hidden, asserted=(mine,)))[0] == "none"
    assert house.judge(invite(signed, said_from=f"<sip:+{CALLER}9@carrier.example>"))[0] == "none"


def test_one_of_several_is_shakens(house: Trunk) -> None:
    signed = house.signer.identity()
    other = house.signer.identity(header={"ppt": "rph"}, more=";ppt=rph")
    assert house.judge(invite(other, signed, other)) == ("A", "")
    assert house.judge(invite(signed, signed)) == ("none", "signed twice")
    assert house.judge(invite(house.signer.identity("A", at=5), house.signer.identity("C"))) == (
        "none", "signed twice",
    )  # fmt: skip
    assert house.judge(invite(signed, *[other] * 4)) == ("none", "too much Identity")
    assert house.judge(invite()) == ("none", "not signed")
    assert house.judge(invite(other)) == ("none", "not signed")


def test_a_huge_one_is_not_read(house: Trunk) -> None:
    huge = house.signer.identity(claims={"a": "x" * LONGEST_IDENTITY})
    assert house.judge(invite(huge)) == ("none", "too much Identity")
    deep = f"{octets(b'[' * 2000)}.{octets(b'[' * 2000)}.{'A' * 86};ppt=shaken"
    with pytest.raises(NoPassport):
        read_passport([deep[:LONGEST_IDENTITY]])


def test_time_is_the_houses(house: Trunk) -> None:
    signed = invite(house.signer.identity())
    assert house.judge(signed, ahead_s=10.0)[0] == "A"
    assert house.judge(signed, ahead_s=600.0) == ("none", "signed too long ago")
    days = 2 * 86_400  # by then the certificate is over
    late = invite(house.signer.identity(at=int(time.time()) + days))
    assert house.judge(late, ahead_s=float(days)) == ("none", "certificate does not verify")


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('eyJ.;=<>"shaken0A-_info\u00e9 '), max_size=200))
def test_no_identity_raises(text: str) -> None:
    with pytest.raises(NoPassport):
        read_passport([text])


async def test_a_call_says_what_is_proven_and_no_line_hears_the_rest(bare: Exchange) -> None:
    house = Trunk()
    signed = SignedCalls([house.authority.certificate], HOSTS, lambda url: (house.signer.certificate,))
    await bare.edge(signed=signed)
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", OFFER, f"Identity: {house.signer.identity()}", "X-Name: ann")
    heard = await line.invited()
    assert bare.desk.calls[0].facts.headers == {
        "attestation": "none", "attestation-why": "another caller's number",
    }  # fmt: skip
    assert "identity" not in {name.lower() for name, _ in heard.headers}


async def test_a_trusted_peers_number_may_be_the_signed_one(bare: Exchange) -> None:
    house = Trunk()
    signed = SignedCalls([house.authority.certificate], HOSTS, lambda url: (house.signer.certificate,))
    await bare.edge(signed=signed, trusted_proxies=("127.0.0.1",))
    line, caller = await bare.line(), await bare.caller()
    caller.to = TO
    said = (f"P-Asserted-Identity: <tel:+{CALLER}>", "Attestation: C", "X-Attestation: C")
    caller.send("INVITE", OFFER, f"y: {house.signer.identity('B')}", *said)  # its compact name
    await line.invited()
    headers = bare.desk.calls[0].facts.headers
    assert headers == {
        "p-asserted-identity": f"<tel:+{CALLER}>", "x-attestation": "C", "attestation": "B",
    }  # fmt: skip


async def test_without_authorities_there_is_no_attestation(bare: Exchange) -> None:
    await bare.edge()
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", OFFER, f"Identity: {Trunk().signer.identity()}", "Attestation: A")
    await line.invited()
    assert bare.desk.calls[0].facts.headers is None
