"""What the cascade counts, as Prometheus wants it; the names are `voicegate_cascade_*`."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

FIRST_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)


class ChatMeters:
    """One engine's counts. None of them holds a word of anybody's."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def name(short: str) -> str:
            return f"voicegate_cascade_{short}"

        self.first_token_s = Histogram(
            name("first_token_seconds"),
            "From a question to the chat server's first token",
            buckets=FIRST_BUCKETS_S,
            registry=registry,
        )
        self.first_sentence_s = Histogram(
            name("first_sentence_seconds"),
            "From a question to the first whole sentence of the answer",
            buckets=FIRST_BUCKETS_S,
            registry=registry,
        )
        self.tokens = Counter(
            name("tokens"),
            "Tokens of answers: as the server counts, else pieces that came",
            registry=registry,
        )
        self.questions = Counter(name("questions"), "Questions to the chat server", registry=registry)
        self.errors = Counter(
            name("errors"), "Requests that failed, by what was wrong", ["kind"], registry=registry
        )
        self.instead = Counter(
            name("instead"),
            "What was said instead of an answer: filler, lost (the answer broke off), farewell",
            ["what"],
            registry=registry,
        )
        self.tools = Counter(name("tools"), "Tools that the model asked for", ["name"], registry=registry)

    def text(self) -> str:
        """The counts now."""
        return generate_latest(self._registry).decode()
