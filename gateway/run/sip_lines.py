"""What each process that has telephones' calls is told: `gateway.rtp.sip_process`."""

from __future__ import annotations

from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.rtp.line_plan import PORTS_A_CALL


def ports_each(settings: Settings) -> int:
    """How many RTP ports a process has, where the settings say with which they begin."""
    return PORTS_A_CALL * (settings.narrow_calls + settings.wide_calls)


def arguments(settings: Settings, runtime: Runtime, number: int) -> list[str]:
    """The command line of the process with this number."""
    host = {"0.0.0.0": "", "localhost": "127.0.0.1"}.get(settings.host, settings.host)  # noqa: S104  # compared
    first = settings.rtp_port + number * ports_each(settings) if settings.rtp_port else 0
    told = {
        "number": number,
        "hall": f"hall{number % settings.halls}",
        "runtime": runtime.path,
        "narrow": settings.narrow_calls,
        "wide": settings.wide_calls,
        "rtp-port": first,
        "media-address": host,
        "rtp-timeout": settings.rtp_timeout_s,
    }
    return [word for name, value in told.items() for word in (f"--{name}", str(value))]
