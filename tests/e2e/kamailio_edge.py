"""A Kamailio before the gateway, as people put one there: it ends TLS and WebSocket, stays in each dialog."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.gateway_process import free_port
from tests.e2e.kamailio import running
from tests.needs import missing

MODULES: Final = Path("/usr/lib/x86_64-linux-gnu/kamailio/modules")
_CONFIG: Final = """#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=1
disable_tcp=no
auto_aliases=no
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
listen=tls:127.0.0.1:{tls_port}
enable_tls=yes
tcp_accept_no_cl=yes
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/:/usr/lib64/kamailio/modules/"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "nathelper.so"
loadmodule "tls.so"
loadmodule "xhttp.so"
loadmodule "websocket.so"
{modules}
modparam("tls", "certificate", "{chain}")
modparam("tls", "private_key", "{key}")
modparam("tls", "tls_method", "TLSv1.2+")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (is_method("OPTIONS") && uri == myself && !has_totag()) {{ sl_send_reply("200", "OK"); exit; }}
    xlog("L_NOTICE", "crossed $rm from $proto:$sp tagged $tt\\n");
    force_rport();
    if (proto == WS || proto == WSS) add_contact_alias();
    if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{
            handle_ruri_alias();
            {ends}
            route(RELAY); exit;
        }}
        if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
        sl_send_reply("404", "Not Here"); exit;
    }}
    if (is_method("ACK")) exit;
    if (is_method("INVITE|SUBSCRIBE")) record_route();
    $du = "sip:127.0.0.1:{gateway_port};transport={transport}";
    route(RELAY);
}}

route[RELAY] {{
    {offers}
    t_on_reply("ANSWERS");
    if (!t_relay()) sl_reply_error();
}}

onreply_route[ANSWERS] {{
    xlog("L_NOTICE", "crossed $rs of $rm from $proto:$sp\\n");
    if (proto == WS || proto == WSS) add_contact_alias();
    {answers}
}}

event_route[xhttp:request] {{
    set_reply_close();
    if ($hdr(Upgrade) =~ "websocket" && $hdr(Connection) =~ "Upgrade" && is_method("GET")) {{
        ws_handle_handshake();
        exit;
    }}
    xhttp_reply("404", "Not Here", "", "");
}}
"""


class Edge(NamedTuple):
    """A Kamailio that runs."""

    port: int
    """UDP and TCP"""
    tls_port: int
    """TLS, and wss"""
    log: Path

    def crossed(self, what: str, by: str = "") -> int:
        """How often it passed that on, by its word: a method, or "200 of BYE"; `by` "wss": that came so."""
        found = re.findall(r"crossed (.+) from (\w+):", self.log.read_text(errors="replace"))
        return sum(said == what and by in ("", way) for said, way in found)


@contextlib.contextmanager
def kamailio_edge(
    folder: Path,
    gateway_port: int,
    *,
    chain: Path,
    transport: str = "udp",
    rtpengine_port: int = 0,
    towards_us: str = "",
    towards_them: str = "",
    anew: bool = False,
) -> Iterator[Edge]:
    """It sends all calls to the gateway by `transport`; `chain` is a certificate, with its key beside it.

    `rtpengine_port`: where a relay takes commands. What it is told of offers: `towards_us` for a caller's,
    and of answers to them; `towards_them` for ours. `anew`: a re-INVITE has it begin
    again, with other keys and ports.
    """
    if not (MODULES / "websocket.so").exists():
        missing("Kamailio's websocket.so (Debian: apt-get install kamailio-websocket-modules)")
    port, tls_port = free_port(), free_port()
    modules = offers = answers = ends = ""
    if rtpengine_port:
        modules = (
            'loadmodule "rtpengine.so"\n'
            f'modparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:{rtpengine_port}")'
        )
        described = 'has_body("application/sdp")'
        again = 'if (has_totag() && is_method("INVITE")) rtpengine_delete(); ' if anew else ""
        offers = (
            f'{again}if (is_method("INVITE|UPDATE") && {described}) {{ if ($sp == {gateway_port}) '
            f'rtpengine_offer("{towards_them}"); else rtpengine_offer("{towards_us}"); }}'
        )
        answers = f"if ({described}) rtpengine_answer();"
        ends = 'if (is_method("BYE")) rtpengine_delete();'
    config = _CONFIG.format(
        port=port, tls_port=tls_port, gateway_port=gateway_port, transport=transport, chain=chain,
        key=chain.with_name("key.pem"), modules=modules, offers=offers, answers=answers, ends=ends,
    )  # fmt: skip
    with running(folder, config, port):
        yield Edge(port, tls_port, folder / "kamailio.log")
