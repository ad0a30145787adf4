"""When packets came, and the holes between them."""

from __future__ import annotations

import pytest

from gateway.phone.phone_wire import Arrivals


def test_what_comes_more_than_40_ms_apart_leaves_a_hole_but_not_while_nothing_is_awaited() -> None:
    arrivals = Arrivals()
    for at in (0.0, 0.02, 0.06, 0.121):
        arrivals.came(at)
    arrivals.pause()
    for at in (5.0, 5.02):
        arrivals.came(at)
    assert (arrivals.packets, arrivals.holes) == (6, 1)
    assert arrivals.longest_s == pytest.approx(0.061)
