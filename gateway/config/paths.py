"""Where things lie in the data directory, said once."""

from __future__ import annotations

from pathlib import Path

from consent.data_dir import OFFICE_SOCKET
from consent.models.model_files import models_dir
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.errors import SettingsError


def consent_dir(settings: Settings) -> Path:
    """Consent's keys, vault and ledger head."""
    return settings.data_dir / "consent"


def office_socket(settings: Settings) -> Path:
    """Where the consent office is asked: its own gateway's socket, or the one that a setting names."""
    named = settings.office_socket
    return consent_dir(settings) / OFFICE_SOCKET if named is None else named.expanduser().absolute()


def grant_keys_path(settings: Settings) -> Path:
    """Public keys that verify grants; halls and engines read it."""
    return consent_dir(settings) / "grant-keys.json"


def mark_keys_path(settings: Settings) -> Path:
    """The watermark's key ring."""
    return settings.data_dir / "watermark-keys.json"


def model_files_dir(settings: Settings) -> Path:
    """Where `voicegate models get` keeps the files that `models.lock` names."""
    return models_dir(settings.data_dir, settings.models)


def route_key_path(settings: Settings) -> Path:
    """The key with which the edge signs its words in Record-Route and Contact."""
    return settings.data_dir / "sip-route-key"


def certificate_paths(settings: Settings) -> tuple[Path, Path]:
    """The certificate and its key: the named files, or the ones that the gateway makes."""
    if settings.tls_certificate is not None and settings.tls_key is not None:
        return settings.tls_certificate.expanduser(), settings.tls_key.expanduser()
    return settings.data_dir / "tls.pem", settings.data_dir / "tls-key.pem"


def redis_url_for(settings: Settings, runtime: Runtime) -> str:
    """The operator's Redis, or the embedded one's socket."""
    return settings.redis_url or f"unix://{runtime.redis}"


def dialplan_dir(settings: Settings) -> Path:
    """The named folder, else the data directory's own, else the shipped one.

    Raises `SettingsError` when the named one is not a folder.
    """
    if settings.dialplans is not None:
        named = settings.dialplans.expanduser()
        if not named.is_dir():
            raise SettingsError(
                f"VOICEGATE_DIALPLANS: {named} is not a folder; make it, or unset the setting"
            )
        return named
    own = settings.data_dir / "dialplans"
    return own if own.is_dir() else Path(__file__).resolve().parents[2] / "dialplans"


def trunks_out_path(settings: Settings) -> Path:
    """Which trunks are out of service; it need not be there."""
    return settings.data_dir / "trunks_out.json"


def kept_plans_path(settings: Settings) -> Path:
    """Where the plans that were in force stay for a while, by version."""
    return settings.data_dir / "plans"


def trunks_path(settings: Settings) -> Path:
    """The file of trunks; it need not be there."""
    return settings.data_dir / "trunks.toml"


def events_path(settings: Settings) -> Path:
    """What calls tell of their lives, kept for a while (docs/events.md)."""
    return settings.data_dir / "events.db"


def webhooks_path(settings: Settings) -> Path:
    """The file of webhooks; it need not be there."""
    return settings.data_dir / "webhooks.toml"


def cdr_dir(settings: Settings) -> Path:
    """Where the records of calls that are over are written."""
    return settings.data_dir / "cdr"


def log_path(settings: Settings) -> Path:
    """Where the log goes while the gateway runs on a terminal."""
    return settings.data_dir / "voicegate.log"


def recordings_dir(settings: Settings) -> Path:
    """Where the verb `record` keeps its files."""
    return settings.data_dir / "recordings"
