"""A Kamailio of the test's own on loopback: a carrier that challenges, registers and passes calls on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.gateway_process import free_port
from tests.needs import HANGS_S, need_program

USER: Final = "u49301"
PASSWORD: Final = "geheim und lang"
BUSY: Final = "+4930486"
MOVED: Final = "+4930302"
OFFICE: Final = "+4930100"
DIRECT: Final = "through"
"""Whom it calls at the gateway's TLS port, over a connection of its own."""
_CLIENTS: Final = """modparam("tls", "ca_list", "{ca}")
modparam("tls", "verify_certificate", 1)
modparam("tls", "require_certificate", 1)"""

_CONFIG: Final = """#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=1
disable_tcp=no
auto_aliases=no
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
listen=tls:{host}:{tls_port}
enable_tls=yes
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/:/usr/lib64/kamailio/modules/"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "auth.so"
loadmodule "tls.so"
modparam("tls", "certificate", "{chain}")
modparam("tls", "private_key", "{key}")
modparam("tls", "tls_method", "TLSv1.2+")
{clients}
modparam("auth", "algorithm", "{algorithm}")
modparam("auth", "qop", "auth")
modparam("registrar", "min_expires", 30)

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
        sl_send_reply("404", "Not Here"); exit;
    }}
    if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("$td", "{password}", "0")) {{ www_challenge("$td", "0"); exit; }}
        save("location"); exit;
    }}
    if (is_method("ACK")) exit;
    if (!is_method("INVITE")) {{ sl_send_reply("405", "Method Not Allowed"); exit; }}
    if ($si == "{host}" && $sp == {phone_port}) {{
        if ($rU == "{direct}") {{
            $du = "sip:{host}:{gate_port};transport=tls"; record_route(); t_relay(); exit;
        }}
        if (!lookup("location")) {{ sl_send_reply("404", "Not Registered"); exit; }}
        record_route(); t_relay(); exit;
    }}
    if (!pv_proxy_authenticate("$fd", "{password}", "0")) {{ proxy_challenge("$fd", "0"); exit; }}
    consume_credentials();
    if ($rU == "{busy}") {{ sl_send_reply("486", "Busy Here"); exit; }}
    if ($rU == "{moved}") {{
        append_to_reply("Contact: <sip:{office}@{host}:$Rp>\\r\\n");
        sl_send_reply("302", "Moved Temporarily"); exit;
    }}
    record_route();
    $du = "sip:{host}:{phone_port}";
    t_relay();
}}
"""


class Ports(NamedTuple):
    """Where it is reached."""

    plain: int
    """UDP and TCP"""
    tls: int


@contextlib.contextmanager
def kamailio(
    folder: Path,
    phone_port: int,
    *,
    algorithm: str,
    chain: Path,
    host: str = "127.0.0.1",
    clients: Path | None = None,
    gate_port: int = 0,
) -> Iterator[Ports]:
    """Yields its ports. What it takes with the right password goes to `phone_port` of the same host; `chain`
    is a certificate, with its key beside it. `clients`: of whom it wants certificates; `gate_port`: the
    gateway's for TLS."""
    port, tls_port = free_port(), free_port()
    key = chain.with_name("key.pem")
    config = _CONFIG.format(
        port=port, phone_port=phone_port, algorithm=algorithm, password=PASSWORD, busy=BUSY, host=host,
        moved=MOVED, office=OFFICE, tls_port=tls_port, chain=chain, key=key, direct=DIRECT,
        gate_port=gate_port, clients="" if clients is None else _CLIENTS.format(ca=clients),
    )  # fmt: skip
    with running(folder, config, port, host):
        yield Ports(port, tls_port)


@contextlib.contextmanager
def running(folder: Path, config: str, port: int, host: str = "127.0.0.1") -> Iterator[None]:
    """A Kamailio with that configuration, which answers OPTIONS at that UDP port."""
    file, log = folder / "kamailio.cfg", folder / "kamailio.log"
    file.write_text(config)
    words = [need_program("kamailio"), "-DD", "-E", "-f", file, "-Y", folder, "-m", "32", "-M", "4"]
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        _await_port(process, host, port, log)
        yield
    finally:
        process.terminate()
        process.wait(HANGS_S)


def _await_port(process: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    """Nothing in another process can be awaited."""
    question = (
        f"OPTIONS sip:{host}:{port} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;rport;branch=z9hG4bK1\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    deadline = time.monotonic() + HANGS_S
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        while True:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, "Kamailio does not answer"
            sock.sendto(question.encode(), (host, port))
            with contextlib.suppress(OSError):
                sock.recv(4096)
                return
