"""A page with a SIP library on it, as a web shop's would be: JsSIP or SIP.js, unchanged, in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from playwright.async_api import Page, Route

from tests.browser import LOOK_AGAIN_S
from tests.e2e.gateway_process import House
from tests.firefox import FirefoxPage
from tests.needs import HANGS_S
from tests.npm_packages import bundle, files

LIBRARIES: Final = ("jssip", "sip.js")
_JSSIP: Final = {
    "jssip": ("jssip@3.13.8", "lib/JsSIP.js"),
    "debug": ("debug@4.4.3", "src/browser.js"),
    "ms": ("ms@2.1.3", "index.js"),
    "events": ("events@3.3.0", "events.js"),
    "sdp-transform": ("sdp-transform@2.15.0", "lib/index.js"),
}

_COMMON: Final = """
const state = window.phone = { confirmed: false, ended: '', failed: '', connection: null };
const attach = (connection) => {
  state.connection = connection;
  const hear = (track) => {
    const audio = document.createElement('audio');
    audio.autoplay = true;
    audio.srcObject = new MediaStream([track]);
    document.body.append(audio);
  };
  connection.addEventListener('track', (event) => hear(event.track));
  for (const receiver of connection.getReceivers()) if (receiver.track) hear(receiver.track);
};
state.heard = async () => {
  let energy = 0, packets = 0;
  for (const one of (await state.connection.getStats()).values())
    if (one.type === 'inbound-rtp') { energy = one.totalAudioEnergy; packets = one.packetsReceived; }
  return { energy, packets };
};
"""

_JSSIP_PAGE: Final = """
const ua = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(where.socket)], uri: `sip:${where.user || 'alice'}@127.0.0.1`,
  register: false, authorization_user: where.user, password: where.password,
});
ua.start();
state.register = () => new Promise((done, no) => {
  ua.on('registered', () => done());
  ua.on('registrationFailed', (event) => no(new Error(event.cause)));
  ua.register();
});
state.call = (uri) => {
  const session = ua.call(uri, {
    mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] },
    eventHandlers: {
      peerconnection: (event) => attach(event.peerconnection),
      confirmed: () => { state.confirmed = true; },
      ended: (event) => { state.ended = event.originator; },
      failed: (event) => { state.failed = event.cause; },
    },
  });
  state.info = (key) => session.sendDTMF(key);
  state.event = (key) => session.sendDTMF(key, { transportType: 'RFC2833' });
  const turned = (how) => new Promise((done, no) => {
    if (!session[how]({ useUpdate: false }, () => done())) no(new Error(how + ' was not possible'));
  });
  state.hold = () => turned('hold');
  state.resume = () => turned('unhold');
  state.hangUp = () => session.terminate();
};
await new Promise((done) => ua.isConnected() ? done() : ua.on('connected', done));
"""

_SIPJS_PAGE: Final = """
const SIP = window.SIP ?? (await import('/phone/sip.js/lib/index.js'));
const ua = new SIP.UserAgent({
  uri: SIP.UserAgent.makeURI('sip:alice@127.0.0.1'), transportOptions: { server: where.socket },
  authorizationUsername: where.user, authorizationPassword: where.password, logLevel: 'error',
  sessionDescriptionHandlerFactoryOptions: { peerConnectionConfiguration: { iceServers: [] } },
});
await ua.start();
state.call = (uri) => {
  const session = new SIP.Inviter(ua, SIP.UserAgent.makeURI(uri), {
    sessionDescriptionHandlerOptions: { constraints: { audio: true, video: false } },
  });
  let ours = false;
  session.stateChange.addListener((now) => {
    if (now === 'Established') {
      attach(session.sessionDescriptionHandler.peerConnection);
      state.confirmed = true;
    }
    if (now === 'Terminated') {
      if (state.confirmed) state.ended = ours ? 'local' : 'remote'; else state.failed = 'terminated';
    }
  });
  state.info = (key) => session.info({ requestOptions: { body: {
    contentDisposition: 'render', contentType: 'application/dtmf-relay',
    content: 'Signal=' + key + '\\r\\nDuration=160' } } });
  state.event = (key) => {
    if (!session.sessionDescriptionHandler.sendDtmf(key)) throw new Error('no keys in RTP');
  };
  const turned = (hold) => new Promise((done, no) => session.invite({
    sessionDescriptionHandlerOptions: { hold }, sessionDescriptionHandlerModifiers: [],
    requestDelegate: { onAccept: () => done(), onReject: (r) => no(new Error('' + r.message.statusCode)) },
  }).catch(no));
  state.hold = () => turned(true);
  state.resume = () => turned(false);
  state.hangUp = () => { ours = true; return session.bye(); };
  session.invite();
};
"""


Run = Callable[[str, Any], Awaitable[Any]]
"""Calls a JavaScript function of one argument, and awaits what it promises."""


class SipPage:
    """One phone on one page. Made by `open` or `open_firefox`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @classmethod
    async def open(
        cls,
        page: Page,
        house: House,
        library: str,
        user: str = "",
        password: str = "",
        socket: str = "",
    ) -> SipPage:
        """A page of the gateway's own origin, whose phone is connected: to it, or to that `socket`."""

        async def served(route: Route) -> None:
            inner = route.request.url.partition("/phone/sip.js/")[2]
            await route.fulfill(body=files("sip.js@0.21.2")[inner], content_type="text/javascript")

        await page.route("**/phone/**", served)
        # any page of the gateway's: one that this test made up would be no machine's, and reach none
        await page.goto(f"{house.url}/healthz")
        if library == "jssip":
            await page.evaluate(bundle("JsSIP", "jssip/lib/JsSIP.js", _JSSIP))
        return await cls._connected(page.evaluate, house, library, user, password, socket)

    @classmethod
    async def open_firefox(cls, page: FirefoxPage, shop: str, house: House, library: str) -> SipPage:
        """A page of `shop`'s (`phone_shop`), whose phone is connected."""

        async def run(function: str, given: Any) -> Any:
            return await page.evaluate(f"({function})({json.dumps(given)})")

        await page.goto(f"{shop}/{library}")
        return await cls._connected(run, house, library, "", "")

    @classmethod
    async def _connected(
        cls, run: Run, house: House, library: str, user: str, password: str, socket: str = ""
    ) -> SipPage:
        own = f"ws{house.url.removeprefix('http')}/sip"
        where = {"socket": socket or own, "user": user, "password": password}
        script = _COMMON + (_JSSIP_PAGE if library == "jssip" else _SIPJS_PAGE)
        await run(f"async (where) => {{ {script} }}", where)
        return cls(run)

    async def do(self, what: str, *given: str) -> Any:
        """Calls one of the phone's functions, and waits for its promise; only `heard` answers."""
        function = """async ([what, given]) => {
          const said = await window.phone[what](...given);
          return what === 'heard' ? said : null;
        }"""
        return await self._run(function, [what, given])

    async def until(self, expression: str) -> None:
        """Waits for what the phone's state says; `failed` ends it."""
        failed = "if (phone.failed) throw new Error(phone.failed);"
        await self._until(f"() => {{ const phone = window.phone; {failed} return {expression}; }}", None)

    async def until_louder(self, than: float = 0.0) -> None:
        """Waits until more of our voice was heard."""
        await self._until("(than) => window.phone.heard().then((heard) => heard.energy > than)", than)

    async def _until(self, function: str, given: Any) -> None:
        async with asyncio.timeout(HANGS_S):
            while not await self._run(function, given):  # noqa: ASYNC110 - it is another process's
                await asyncio.sleep(LOOK_AGAIN_S)


@contextlib.asynccontextmanager
async def phone_shop() -> AsyncIterator[str]:
    """A server with a page for each library, of an origin that is not the gateway's; its origin."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        kind, body = "text/javascript", files("sip.js@0.21.2").get(asked.removeprefix("/phone/sip.js/"), b"")
        if asked == "/jssip.js":
            body = bundle("JsSIP", "jssip/lib/JsSIP.js", _JSSIP).encode()
        elif asked == "/jssip":
            kind, body = "text/html", b"<!doctype html><script src=/jssip.js></script>"
        elif asked == "/sip.js":
            script = "import * as SIP from '/phone/sip.js/lib/index.js'; window.SIP = SIP;"
            kind, body = "text/html", f"<!doctype html><script type=module>{script}</script>".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
