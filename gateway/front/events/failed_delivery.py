"""Why a receiver was not told, in words for the log: no URL, and nothing that the other side wrote."""

from __future__ import annotations

import smtplib
import socket
import ssl
from typing import Final

from gateway.front.house.guarded_transport import NotAsked

CERTIFICATE: Final = {
    9: "its certificate is not valid yet",
    10: "its certificate has ended",
    18: "its certificate is signed by itself, and not one that this machine trusts",
    19: "this machine trusts none of those who signed its certificate",
    20: "this machine trusts none of those who signed its certificate",
    21: "this machine trusts none of those who signed its certificate",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
"""By OpenSSL's number (X509_V_ERR_…)."""
LONGEST_CHAIN: Final = 8


def why_undelivered(error: BaseException) -> str:
    """What lies at the bottom of an error of httpx, smtplib or a socket, as far as it is known."""
    for one in _causes(error):
        match one:
            case ssl.SSLCertVerificationError():
                return CERTIFICATE.get(one.verify_code, "its certificate does not hold")
            case smtplib.SMTPNotSupportedError():
                return "the relay offers no STARTTLS"
            case smtplib.SMTPResponseException():
                return f"the relay answered {one.smtp_code}"
            case ssl.SSLError():
                return "it does not speak TLS as we do"
            case ConnectionRefusedError():
                return "nobody listens there"
            case NotAsked():
                return str(one)
            case socket.gaierror():
                return "its name has no address"
            case _:
                continue
    return type(error).__name__


def is_untrusted(error: BaseException) -> bool:
    """Whether it is the certificate that does not hold."""
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error))


def _causes(error: BaseException) -> list[BaseException]:
    """The error and those that it came of, the last one first."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(found) < LONGEST_CHAIN:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found[::-1]
