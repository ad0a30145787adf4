"""The living calls of one process, and the word to Redis, again and again, that they live."""

from __future__ import annotations

import time
from typing import Final

from gateway.store.session_writer import Command, Writer
from gateway.store.sound_track import sound_key

LIVE: Final = "vg:live"
STALE_S: Final = 45.0
"""A living call that was not refreshed for this long is lost: its hall is gone."""
REFRESH_S: Final = 10.0


def ladder_keys(call_id: str) -> tuple[str, str]:
    """Of a call's first and last SIP messages (`gateway.store.call_trails`)."""
    return f"vg:ladder:{call_id}", f"vg:ladder_late:{call_id}"


def log_keys(call_id: str) -> tuple[str, str]:
    """Of a call's first and last lines of the log."""
    return f"vg:log:{call_id}", f"vg:log_late:{call_id}"


class LivingCalls:
    """What `writer` tells Redis keeps for `ttl_s` seconds after a call was last known to live."""

    def __init__(self, writer: Writer, ttl_s: float) -> None:
        self.ttl = str(max(1, round(ttl_s)))
        """Seconds, as Redis takes them."""
        self._writer = writer
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def begin(self, call_id: str) -> None:
        """From now on this call lives here."""
        self._ids.add(call_id)

    def end(self, call_id: str) -> None:
        """The call lives here no longer."""
        self._ids.discard(call_id)

    @property
    def crowded(self) -> bool:
        """Redis takes nothing, or not enough: what can be missed need not be put."""
        return self._writer.crowded

    def put(self, *commands: Command, important: bool = False) -> None:
        """Hands one write about a call to the writer; see there what `important` is."""
        self._writer.put(commands, important=important)

    def refresh(self) -> None:
        """Says of each living call that it lives; called by the writer every `REFRESH_S`."""
        now = f"{time.time():.3f}"
        for call_id in self._ids:
            own = (f"vg:call:{call_id}", f"vg:events:{call_id}", f"vg:history:{call_id}", sound_key(call_id))
            keys = (*own, *ladder_keys(call_id), *log_keys(call_id))
            self.put(("ZADD", LIVE, now, call_id), *(("EXPIRE", key, self.ttl) for key in keys))
