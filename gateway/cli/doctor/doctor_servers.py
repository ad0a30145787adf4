"""What the doctor asks servers that the operator named: the collector of telemetry, the login provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gateway.cli.doctor.diagnosis import Diagnosis, ok
from gateway.config.settings import Settings
from gateway.errors import SettingsError
from gateway.front.events.collector import Collector, CollectorAnswer, shown_headers
from gateway.front.http.id_token import ClaimedRoles
from gateway.front.http.identity_provider import IdentityProvider, ProviderAway


def collector(settings: Settings) -> Iterator[Diagnosis]:
    """Tells the collector nothing, as it is told metrics, and looks whether it takes that."""
    if settings.otlp_url is None:
        return
    what = "collector"
    try:
        shown = shown_headers(settings.otlp_headers_file)
    except SettingsError as error:
        yield Diagnosis(what, "fail", str(error), "write the headers there, one in a line, and chmod 600 it")
        return
    answer = asyncio.run(_told_nothing(Collector(settings.otlp_url, shown)))
    if answer.took:
        yield ok(what, f"{settings.otlp_url} takes metrics")
        return
    fix = "start it" if not answer.status else "look at VOICEGATE_OTLP_URL"
    if answer.status in (401, 403):
        fix = "look at VOICEGATE_OTLP_HEADERS_FILE: it does not take what it is shown"
    yield Diagnosis(what, "warn", f"{settings.otlp_url}: {answer.why}", fix)


async def _told_nothing(there: Collector) -> CollectorAnswer:
    try:
        return await there.post("metrics", {"resourceMetrics": []})
    finally:
        await there.close()


def provider(settings: Settings) -> Iterator[Diagnosis]:
    """Finds the login provider, and looks whether anybody could log in by it."""
    what = "login provider"
    try:
        found = IdentityProvider.of(settings, told=lambda _: None)
        ClaimedRoles(settings.oidc_claim, settings.oidc_roles)
    except SettingsError as error:
        yield Diagnosis(what, "fail", str(error), "correct that setting")
        return
    if found is None:
        return
    try:
        keys = asyncio.run(_keys(found))
    except ProviderAway as away:
        fix = "look at VOICEGATE_OIDC_ISSUER: it is as the provider writes it, to the last slash"
        yield Diagnosis(what, "warn", f"{found.issuer}: {away}", fix)
        return
    if not keys:
        fix = "have it sign by RSA (2048 bits at least) or an elliptic curve"
        yield Diagnosis(what, "fail", f"{found.issuer} shows no key that holds here", fix)
    elif not settings.oidc_roles:
        fix = "set VOICEGATE_OIDC_ROLES, such as staff=watcher"
        yield Diagnosis(what, "warn", f"{found.issuer} is found, and nobody has a role", fix)
    else:
        yield ok(what, f"{found.issuer}; people come back to {settings.console_url}/login/oidc/back")


async def _keys(found: IdentityProvider) -> int:
    try:
        return len(await found.keys(None))
    finally:
        await found.close()
