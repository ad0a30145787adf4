"""What a call speaks by: its grant, and why its voice may not be heard any more."""

from __future__ import annotations

from consent.grants.grant import VoiceGrant


class Licence:
    """One call's. It begins without a grant; once muted, it stays muted."""

    def __init__(self) -> None:
        self.grant: VoiceGrant | None = None
        """the last one that was verified"""
        self.muted: str | None = None
        """why the voice may not be heard (revoked, expired, no mark, …); the leg plays silence"""

    @property
    def token(self) -> str | None:
        """The grant's token, for an engine; None while the call may not speak."""
        return self.grant.token if self.grant is not None and self.muted is None else None

    def use(self, grant: VoiceGrant) -> bool:
        """Takes a verified grant; True when it takes another one's place."""
        renewed = self.grant is not None
        self.grant = grant
        return renewed

    def mute(self, reason: str) -> bool:
        """False when the voice was muted already: the first reason stays."""
        if self.muted is not None:
            return False
        self.muted = reason
        return True
