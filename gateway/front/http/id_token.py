"""What a provider says of who logged in: its ID token, believed when it is for this login and signed by it.

OpenID Connect Core 1.0 §3.1.3.7; RFC 8725 (one list of algorithms, none of them symmetric, keys of the
provider alone: what a token says of its own key is not looked at).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry, extract_compact

from gateway.errors import SettingsError, VoicegateError
from gateway.front.admission.rights import ROLES

ALGORITHMS: Final = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
    "ES256": "EC", "ES384": "EC", "ES512": "EC",
}  # fmt: skip
"""Those that hold, each with its kind of key."""
LEEWAY_S: Final = 60.0
"""By how much the provider's clock may differ from ours."""
OLDEST_S: Final = 600.0
"""A token that was made before a login began is not this login's."""
LEAST_RSA: Final = 2048
MOST_RSA: Final = 8192
LONGEST_SUBJECT: Final = 255
SHOWN_SUBJECT: Final = 48
"""Characters of a subject in our tables."""
KINDS: Final[Mapping[str, type[RSAKey] | type[ECKey]]] = {"RSA": RSAKey, "EC": ECKey}
_REGISTRY: Final = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)

ProviderKey = RSAKey | ECKey
KeysById = dict[str | None, list[ProviderKey]]


class LoginRefused(VoicegateError):
    """Nobody logged in; the text says why and quotes nothing that came from outside."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who logged in, as the provider says. `name`: what stands in our tables and log."""

    name: str
    claims: Mapping[str, Any]


def header_of(token: str) -> tuple[str, str | None]:
    """Algorithm and key id of a token that nobody has verified yet. Raises `LoginRefused`."""
    try:
        header = extract_compact(token.encode()).headers()
        algorithm, key_id = header["alg"], header.get("kid")
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LoginRefused("the provider's token cannot be read") from None
    if algorithm not in ALGORITHMS:
        raise LoginRefused("the provider's token is signed by an algorithm that does not hold")
    if key_id is not None and not isinstance(key_id, str):
        raise LoginRefused("the provider's token cannot be read")
    return str(algorithm), key_id


def read_keys(table: Any) -> KeysById:
    """The keys of a JWK Set that may sign, by their ids; those that cannot be used are passed over."""
    found: KeysById = {}
    given = table.get("keys") if isinstance(table, dict) else None
    for one in given[:100] if isinstance(given, list) else []:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        kind = KINDS.get(str(one.get("kty")))
        public = {name: value for name, value in one.items() if name in ("kty", "n", "e", "crv", "x", "y")}
        try:
            key = None if kind is None else kind.import_key(public)
        except (JoseError, ValueError, TypeError, KeyError, OverflowError, AttributeError):
            continue
        if key is None or (isinstance(key, RSAKey) and not LEAST_RSA <= _size(key) <= MOST_RSA):
            continue
        key_id = one.get("kid")
        found.setdefault(key_id if isinstance(key_id, str) else None, []).append(key)
    return found


def _size(key: RSAKey) -> int:
    return int(key.raw_value.key_size)


def verified(
    token: str,
    keys: Sequence[ProviderKey],
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    now: float | None = None,
) -> Subject:
    """Whom the token names. `keys`: the provider's that it may be signed by. Raises `LoginRefused`."""
    now = time.time() if now is None else now
    kind = ALGORITHMS[header_of(token)[0]]
    claims: dict[str, Any] | None = None
    for key in keys:
        if key.key_type != kind:
            continue
        try:
            claims = jwt.decode(token, key, registry=_REGISTRY).claims
            break
        except (JoseError, ValueError, TypeError, RecursionError):
            continue
    if claims is None:
        raise LoginRefused("the provider's token is not signed by a key of the provider")
    if claims.get("iss") != issuer:
        raise LoginRefused("the provider's token is another issuer's")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp")
    if client_id not in audiences or (party is None and len(audiences) > 1) or party not in (None, client_id):
        raise LoginRefused("the provider's token is for somebody else")
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode("utf-8", "replace"), nonce.encode()):
        raise LoginRefused("the provider's token is of another login")
    over, made = _time(claims, "exp"), _time(claims, "iat")
    if now >= over + LEEWAY_S or not -LEEWAY_S <= now - made <= OLDEST_S + LEEWAY_S:
        raise LoginRefused("the provider's token is over, or of another time")
    if "nbf" in claims and now + LEEWAY_S < _time(claims, "nbf"):
        raise LoginRefused("the provider's token is over, or of another time")
    return Subject(_shown(claims.get("sub")), claims)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise LoginRefused("the provider's token is over, or of another time")
    return float(value)


def _shown(subject: object) -> str:
    """A subject's name here, which is no other subject's: a long one ends in its hash."""
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise LoginRefused("the provider's token names nobody")
    if not (subject.isascii() and subject.isprintable()):
        raise LoginRefused("the provider's token names nobody")
    if len(subject) <= SHOWN_SUBJECT:
        return f"oidc:{subject}"
    return f"oidc:{subject[:31]}~{hashlib.sha256(subject.encode()).hexdigest()[:16]}"


class ClaimedRoles:
    """Which role whom the provider sends has. `written`: `VALUE=ROLE`; the first that fits holds.

    Raises `SettingsError`.
    """

    def __init__(self, claim: str, written: Sequence[str]) -> None:
        self._claim = claim
        self._roles: list[tuple[str, str]] = []
        for one in written:
            value, _, role = one.rpartition("=")
            if not value or role not in ROLES or role == "nobody":
                known = ", ".join(name for name in ROLES if name != "nobody")
                raise SettingsError(f"VOICEGATE_OIDC_ROLES: {one!r} is not VALUE=ROLE; roles: {known}")
            self._roles.append((value, role))

    def of(self, subject: Subject) -> str:
        """Its role. Raises `LoginRefused` for whom no role is meant for."""
        said = self._said(subject.claims)
        values = {one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str)}
        for value, role in self._roles:
            if value in values:
                return role
        raise LoginRefused(f"no role is meant for {subject.name}")

    def _said(self, claims: Mapping[str, Any]) -> object:
        """The claim of that name, else what its dots lead to."""
        if self._claim in claims:
            return claims[self._claim]
        here: object = claims
        for part in self._claim.split("."):
            if not isinstance(here, Mapping):
                return None
            here = here.get(part)
        return here
