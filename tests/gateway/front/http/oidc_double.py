"""An OpenID provider that really signs, and lies as it is told to; and an authority of its own for TLS."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT = "voicegate"
SECRET = "provider-s3cret-0123456789"

Key = RSAKey | ECKey
Table = dict[str, Any]


@cache
def rsa_key(name: str = "one", size: int = 2048) -> RSAKey:
    with warnings.catch_warnings(action="ignore"):  # a small one is for a test that it is refused
        return RSAKey.generate_key(size, {"kid": name})


@cache
def ec_key(name: str = "ec") -> ECKey:
    return ECKey.generate_key("P-256", {"kid": name})


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: Table, key: Key, algorithm: str) -> str:
    return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])


@dataclass
class Begun:
    """A login that somebody began: what the authorization endpoint was asked."""

    asked: dict[str, str]
    code: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass
class ProviderDouble:
    """With `with`: at `issuer`. What it does may be changed at any time."""

    keys: list[Key] = field(default_factory=lambda: [rsa_key(), ec_key()])
    """those that it shows"""
    signer: Key = field(default_factory=rsa_key)
    algorithm: str = "RS256"
    twist: Callable[[Table], Table] = lambda claims: claims
    """of the ID token's claims"""
    make: Callable[[Table], str] | None = None
    """the whole token"""
    facts: Table = field(default_factory=dict)
    """what discovery says otherwise"""
    status: dict[str, int] = field(default_factory=dict)
    """of an endpoint's answers"""
    bodies: dict[str, bytes] = field(default_factory=dict)
    names_itself: bool = True
    answered: Counter[str] = field(default_factory=Counter)
    wants_secret: bool = True
    forgets_codes: bool = True
    logins: list[Table] = field(default_factory=list)
    """what the token endpoint was sent"""
    begun: dict[str, Begun] = field(default_factory=dict)
    issuer: str = ""

    def __enter__(self) -> ProviderDouble:
        double = self

        class Door(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                double.serve(self, b"")

            def do_POST(self) -> None:
                double.serve(self, self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        serving = partial(self._server.serve_forever, poll_interval=0.01)
        threading.Thread(target=serving, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, door: BaseHTTPRequestHandler, body: bytes) -> None:
        parts = urlsplit(door.path)
        name = parts.path.rpartition("/")[2]
        self.answered[name] += 1
        status, headers, said = 200, {"Content-Type": "application/json"}, b"{}"
        if name == "openid-configuration":
            said = json.dumps(self.discovery()).encode()
        elif name == "jwks":
            said = json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()
        elif name == "authorize":
            status, headers["Location"] = 302, self.agreed(door.path)
        elif name == "token":
            status, said = self.token(door, body)
        status, said = self.status.get(name, status), self.bodies.get(name, said)
        door.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(said))}.items():
            door.send_header(header, value)
        door.end_headers()
        door.wfile.write(said)

    def discovery(self) -> Table:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_response_iss_parameter_supported": self.names_itself,
            **self.facts,
        }

    def agreed(self, url: str) -> str:
        """Where a browser is sent back to that came to that URL, and whose owner agreed."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        begun = Begun(asked)
        self.begun[begun.code] = begun
        more = {"iss": self.issuer} if self.names_itself else {}
        return f"{asked['redirect_uri']}?{urlencode({'code': begun.code, 'state': asked['state'], **more})}"

    def token(self, door: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.logins.append({**form, "authorization": door.headers.get("authorization", "")})
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        shown = door.headers.get("authorization") == basic or form.get("client_secret") == SECRET
        if self.wants_secret and not shown:
            return 401, b'{"error": "invalid_client"}'
        take = self.begun.pop if self.forgets_codes else self.begun.get
        begun = take(form["code"], None)
        if (
            begun is None
            or begun.asked["redirect_uri"] != form["redirect_uri"]
            or b64(hashlib.sha256(form["code_verifier"].encode()).digest()) != begun.asked["code_challenge"]
        ):
            return 400, b'{"error": "invalid_grant"}'
        now = int(time.time())
        claims = self.twist(
            {
                "iss": self.issuer,
                "sub": "ada",
                "aud": CLIENT,
                "nonce": begun.asked["nonce"],
                "iat": now,
                "exp": now + 300,
                "groups": ["staff", "voicegate-admins"],
            }
        )
        made = self.make(claims) if self.make else signed(claims, self.signer, self.algorithm)
        return 200, json.dumps({"access_token": "x", "token_type": "Bearer", "id_token": made}).encode()
