"""Whether a caller is still there, by what comes from them: RTP of any kind, and RTCP's reports."""

from __future__ import annotations


class Pulse:
    """One caller's. It is asked once a second, off the 20 ms path.

    A phone that leaves silence out sends no RTP for as long as its user listens; its RTCP comes every 5 s
    (RFC 3550 §6.2) and counts as much. Times are `time.monotonic()`.
    """

    __slots__ = ("_counts", "_since")

    def __init__(self) -> None:
        self._counts: tuple[int, int] | None = None
        self._since = 0.0

    def silent_s(self, counts: tuple[int, int] | None, now: float) -> float:
        """Seconds since `counts` (packets of RTP, reports) last changed.

        None: nothing is awaited, since the call is held or goes one way. The time begins anew after that.
        """
        if counts is None or counts != self._counts:
            self._counts, self._since = counts, now
        return now - self._since
