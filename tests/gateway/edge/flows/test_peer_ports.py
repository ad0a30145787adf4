"""The ports that peers reach us at."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from gateway.edge.flows.connections import StreamPort
from gateway.edge.flows.peer_ports import PeerPorts


@pytest.mark.parametrize(("port", "opens"), [(0, True), (45_071, False)], ids=("any", "named"))
async def test_any_port_is_one_that_is_free_for_tcp_too(
    monkeypatch: pytest.MonkeyPatch, port: int, opens: bool
) -> None:
    whole, tried = StreamPort.open, []

    async def taken_twice(self: StreamPort, host: str, port: int, *more: Any) -> None:
        tried.append(port)
        if len(tried) <= 2:
            raise OSError(errno.EADDRINUSE, "somebody's")
        await whole(self, host, port, *more)

    monkeypatch.setattr(StreamPort, "open", taken_twice)
    ports = PeerPorts(lambda data, flow: True, lambda flow: None)
    if opens:
        await ports.open("127.0.0.1", port)
        assert ports.udp.address[1] == ports.port("tcp") == tried[-1]
        assert len(tried) == 3
    else:
        with pytest.raises(OSError, match="somebody's"):
            await ports.open("127.0.0.1", port)
        assert tried == [port]
    await ports.close()
