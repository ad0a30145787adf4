"""What is made once before the house starts: `python -m gateway.run.prepare`, in a process of its own.

The supervisor lives as long as the house and needs neither SQL nor keys; this process is gone in a second.
"""

from __future__ import annotations

import sys

from consent.checks import Checks
from consent.errors import ConsentError
from consent.office import ConsentOffice
from gateway.config.paths import consent_dir, mark_keys_path, model_files_dir
from gateway.config.settings import Settings, load
from gateway.errors import StartError, VoicegateError
from gateway.store.registry import Registry
from watermark.errors import WatermarkError
from watermark.keys import KeyRing


def prepare(settings: Settings) -> None:
    """Makes the keys that every part reads, and closes the rows of calls that a crash left open.

    Raises `VoicegateError`.
    """
    keys = mark_keys_path(settings)
    try:
        ConsentOffice.open(settings.sql, consent_dir(settings)).close()
        # a mistake in checks.toml is said before anything starts
        Checks.load(consent_dir(settings), keys, model_files_dir(settings))
        ring = KeyRing.load(keys) if keys.exists() else KeyRing.create(keys)
    except (ConsentError, WatermarkError) as error:
        raise StartError(str(error)) from None
    registry = Registry.open(settings.sql)
    for key in ring.keys:
        registry.close_all(key.id, "failed: the gateway died")
    registry.close()


if __name__ == "__main__":
    try:
        prepare(load())
    except VoicegateError as error:
        print(error)
        sys.exit(1)
