"""Server-sent events, as the rule has them (WHATWG HTML §9.2.6)."""

from __future__ import annotations

import pytest

from model.cascade.event_stream import MOST_BYTES, EventStream
from model.errors import ChatServerError


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        (b"data: one\n\ndata: two\n\n", ["one", "two"]),
        (b"data: one\r\n\r\ndata: two\r\rdata: three\n\n", ["one", "two", "three"]),
        (b"data:one\ndata:  two\n\n", ["one\n two"]),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", ["after a byte order mark"]),
        (b": a comment\nid: 7\nevent: x\nretry: 3\ndata: x\n\n", ["x"]),
        (b"event: without data\n\n\n\n", []),
        (b"data\n\n", [""]),
        (b"data: cut off by the end", []),
        (b"data: cut off\n", []),
        (b"data: caf\xe9 \xff\n\n", ["caf� �"]),
        (b"data: \xf0\x9f\x98\x80\n\n", ["\U0001f600"]),
    ],
)
def test_data_comes_out_however_it_is_cut(sent: bytes, events: list[str]) -> None:
    assert EventStream().feed(sent) == events
    for size in (1, 2, 3, 5):
        stream = EventStream()
        parts = [sent[at : at + size] for at in range(0, len(sent), size)]
        assert [event for part in parts for event in stream.feed(part)] == events, size


@pytest.mark.parametrize("sent", [b"data: " + b"x" * 1024, b"data: x\n", b": x"])
def test_an_event_without_end_is_refused_before_it_fills_the_memory(sent: bytes) -> None:
    stream = EventStream()

    def feed_on() -> None:
        for _ in range(2 * MOST_BYTES):
            stream.feed(sent)

    with pytest.raises(ChatServerError) as refused:
        feed_on()
    assert refused.value.kind == "too_large"
