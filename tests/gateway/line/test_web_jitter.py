"""The jitter buffer on a scripted network and a clock of the test's own: no real time passes here."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from gateway.line.jitter import FRAME, JitterBuffer, Pulled, PullKind

TICK_S = 0.02


@dataclass
class Sent:
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes


def stream(
    count: int, first: int = 1000, first_timestamp: int = 0, ssrc: int = 7, samples: int = FRAME
) -> list[Sent]:
    """Packets whose payload is their number, counted from 0."""
    return [
        Sent((first + n) & 0xFFFF, (first_timestamp + n * samples) & 0xFFFFFFFF, ssrc, str(n).encode())
        for n in range(count)
    ]


@dataclass
class Line:
    """Pulls every 20 ms, 3 ms after the whole tick, as packets of a script arrive."""

    quiet: bool = True
    """the sound may be left out when spare"""
    now: float = 0.0
    pulls: list[tuple[float, Pulled]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffer = JitterBuffer(clock=lambda: self.now)

    def run(self, arrivals: list[tuple[float, Sent]], until: float, frames: int = 1) -> Line:
        """`frames` is how many ticks one packet lasts."""
        waiting = sorted(arrivals, key=lambda arrival: arrival[0])
        at = 0.003
        while at < until:
            while waiting and waiting[0][0] <= at:
                self.now, packet = waiting.pop(0)
                self.buffer.add(packet)
            self.now = at
            while True:
                pulled = self.buffer.pull()
                if pulled.kind is PullKind.PLAY and (pulled.must_drop or (pulled.spare and self.quiet)):
                    self.buffer.dropped()
                    self.pulls.append((-1.0, pulled))
                    continue
                break
            self.pulls.append((at, pulled))
            at += frames * TICK_S
        return self

    def played(self) -> list[int]:
        """Numbers of the packets heard, in order."""
        return [int(p.payload) for at, p in self.pulls if p.kind is PullKind.PLAY and at >= 0]

    def concealed(self) -> int:
        return sum(1 for _, p in self.pulls if p.kind in (PullKind.LATE, PullKind.RECOVER))

    def delay_s(self, number: int, samples: int = FRAME) -> float:
        """How long after it was sent a packet was pulled."""
        at = next(
            at for at, p in self.pulls if p.kind is PullKind.PLAY and at >= 0 and int(p.payload) == number
        )
        return at - number * samples / 48_000


def on_time(packets: list[Sent], delay_s: float = 0.001) -> list[tuple[float, Sent]]:
    return [(n * TICK_S + delay_s, packet) for n, packet in enumerate(packets)]


def test_a_clean_stream_is_played_whole_and_soon() -> None:
    line = Line().run(on_time(stream(200)), until=4.0)
    played = line.played()
    assert played == sorted(played)
    assert len(played) >= 196  # the 40 ms of the beginning are shed when nothing needs them
    assert line.concealed() == 0
    assert line.delay_s(190) < 0.035


def test_one_lost_packet_stalls_nothing_and_leaves_no_delay() -> None:
    packets = on_time(stream(200))
    before = Line().run(packets, until=4.0)
    line = Line().run([arrival for arrival in packets if arrival[1].payload != b"100"], until=4.0)
    assert line.concealed() == 1
    assert line.buffer.stats.lost == 1
    assert line.delay_s(101) == pytest.approx(before.delay_s(101))  # the very next one is not late
    assert line.delay_s(190) == pytest.approx(before.delay_s(190))


def test_the_lost_packet_is_asked_of_the_next_ones_fec() -> None:
    # 60 ms of jitter now and then, so that the next packet waits when its predecessor is missed
    arrivals = [
        (n * TICK_S + (0.05 if n % 10 == 0 else 0.001), packet)
        for n, packet in enumerate(stream(300))
        if n != 205
    ]
    line = Line(quiet=False).run(arrivals, until=6.0)
    recovered = [p for _, p in line.pulls if p.kind is PullKind.RECOVER]
    assert [p.payload for p in recovered] == [b"206"]
    assert line.buffer.stats.recovered == 1
    assert line.played()[-80:] == [n for n in line.played()[-80:] if n != 205]
    assert 206 in line.played()


@pytest.mark.parametrize("burst", [2, 3, 4, 8, 30])
def test_a_burst_of_losses_leaves_no_delay(burst: int) -> None:
    packets = on_time(stream(400))
    lost = {str(n).encode() for n in range(200, 200 + burst)}
    line = Line(quiet=False).run([a for a in packets if a[1].payload not in lost], until=8.0)
    assert line.delay_s(390) < 0.045
    played = line.played()
    assert played == sorted(set(played))
    assert set(range(260, 390)) <= set(played)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_random_loss_costs_only_what_was_lost(share: float) -> None:
    chance = random.Random(3)
    arrivals = [arrival for arrival in on_time(stream(1000)) if chance.random() > share]
    line = Line().run(arrivals, until=20.0)
    missing = 1000 - len(arrivals)
    assert len(line.played()) >= len(arrivals) - 8
    assert line.concealed() <= missing + 2
    assert line.delay_s(line.played()[-5]) < 0.05


@pytest.mark.parametrize("jitter_s", [0.01, 0.03, 0.06])
def test_jitter_is_waited_for_and_forgotten(jitter_s: float) -> None:
    chance = random.Random(5)
    packets = stream(1500)
    rough = [(n * TICK_S + chance.uniform(0, jitter_s), packet) for n, packet in enumerate(packets[:700])]
    calm = [(n * TICK_S + 0.001, packet) for n, packet in enumerate(packets)][700:]
    line = Line().run(rough + calm, until=30.0)
    settled = [p.kind for at, p in line.pulls if 3.0 < at < 14.0]
    assert settled.count(PullKind.LATE) <= 0.02 * len(settled)
    played = line.played()
    assert played == sorted(set(played))
    assert line.delay_s(played[played.index(690)] if 690 in played else 691) < jitter_s + 0.045
    assert line.delay_s(1490) < 0.045  # the calm took the delay away again


def test_reordered_packets_are_put_in_order() -> None:
    packets = stream(400)
    arrivals = []
    for n, packet in enumerate(packets):
        late = 0.025 if n % 5 == 2 else 0.001  # overtaken by its successor
        arrivals.append((n * TICK_S + late, packet))
    line = Line().run(arrivals, until=8.0)
    played = line.played()
    assert played == sorted(set(played))
    late = line.buffer.stats.late
    assert late <= 3  # until the buffer knew
    assert len(played) >= 400 - 12


def test_reordering_that_begins_later_is_waited_for_too() -> None:
    arrivals = [
        (n * TICK_S + (0.045 if n % 5 == 2 and n > 300 else 0.001), packet)
        for n, packet in enumerate(stream(1000))
    ]
    line = Line(quiet=False).run(arrivals, until=20.0)
    assert line.buffer.stats.late <= 12  # 140 come after their successor
    assert set(range(400, 980)) <= set(line.played())


def test_a_longer_way_is_no_excess() -> None:
    """A new route, 100 ms longer for good: once known, jitter is judged by it."""
    arrivals = [(n * TICK_S + (0.1 if n > 300 else 0.001), packet) for n, packet in enumerate(stream(1500))]
    for n in range(1002, 1500, 5):
        arrivals[n] = (arrivals[n][0] + 0.045, arrivals[n][1])
    line = Line(quiet=False).run(arrivals, until=29.9)
    assert all(at >= 0 and p.kind is PullKind.PLAY for at, p in line.pulls[600:1000])
    assert line.delay_s(990) < 0.1 + 0.045
    assert set(range(1100, 1480)) <= set(line.played())


def test_a_stall_is_caught_up_with() -> None:
    """Nothing for 300 ms, then everything at once: heard, and the delay goes within two seconds."""
    packets = stream(600)
    arrivals = [
        (max(n * TICK_S + 0.001, 4.3) if 200 <= n < 215 else n * TICK_S + 0.001, packet)
        for n, packet in enumerate(packets)
    ]
    line = Line(quiet=False).run(arrivals, until=12.0)
    assert line.delay_s(590) < 0.045
    assert {196, 214, 230} <= set(line.played())


def test_loud_sound_is_left_out_only_when_it_must_be() -> None:
    loud = Line(quiet=False).run(on_time(stream(200)), until=4.0)
    quiet = Line(quiet=True).run(on_time(stream(200)), until=4.0)
    first_loud = next(n for n, (at, _) in enumerate(loud.pulls) if at < 0)
    first_quiet = next(n for n, (at, _) in enumerate(quiet.pulls) if at < 0)
    assert first_loud >= first_quiet + 10


@pytest.mark.parametrize("ppm", [-300, 300])
def test_a_drifting_clock_is_followed(ppm: int) -> None:
    """A sound card 300 ppm off: 18 ms a minute."""
    arrivals = [(n * TICK_S * (1 - ppm * 1e-6) + 0.001, packet) for n, packet in enumerate(stream(6000))]
    line = Line().run(arrivals, until=119.5)
    played = line.played()
    assert len(played) >= 5940
    last = played[-1]
    sent = last * TICK_S * (1 - ppm * 1e-6)
    at = next(at for at, p in line.pulls if p.kind is PullKind.PLAY and at >= 0 and int(p.payload) == last)
    assert at - sent < 0.06


def test_a_pause_of_the_sender_is_silence_not_concealment() -> None:
    packets = stream(100)
    for n, packet in enumerate(packets[50:]):
        packet.timestamp = 200 * FRAME + n * FRAME  # DTX: the numbers go on, the time jumped
    arrivals = on_time(packets[:50]) + [(4.001 + n * TICK_S, packet) for n, packet in enumerate(packets[50:])]
    line = Line().run(arrivals, until=5.0)
    kinds = [p.kind for at, p in line.pulls if 1.3 < at < 3.9]
    assert set(kinds) == {PullKind.SILENT}
    assert line.concealed() <= 5
    assert set(range(50, 95)) <= set(line.played())


@pytest.mark.parametrize("first", [65_500, 65_535, 0])
def test_counters_wrap(first: int) -> None:
    packets = stream(200, first=first, first_timestamp=2**32 - 50 * FRAME)
    line = Line().run(on_time(packets), until=4.0)
    assert line.concealed() == 0
    assert len(line.played()) >= 196


def test_a_new_stream_begins_anew() -> None:
    arrivals = on_time(stream(100)) + [
        (2.0 + at, packet) for at, packet in on_time(stream(100, first=40_000, first_timestamp=9_999, ssrc=8))
    ]
    line = Line().run(arrivals, until=4.0)
    assert line.played()[-1] == 98 or line.played()[-1] == 99
    assert len(line.played()) >= 190


def test_duplicates_and_stragglers_are_dropped() -> None:
    arrivals = on_time(stream(100))
    arrivals += [(at + 0.001, packet) for at, packet in arrivals[::3]]
    arrivals += [(at + 0.5, packet) for at, packet in arrivals[:50:7]]
    line = Line().run(arrivals, until=2.5)
    played = line.played()
    assert played == sorted(set(played))


def test_packets_of_60_ms_are_one_pull_each() -> None:
    packets = stream(100, samples=3 * FRAME)
    arrivals = [(n * 3 * TICK_S + 0.001, packet) for n, packet in enumerate(packets)]
    line = Line().run(arrivals, until=6.0, frames=3)
    assert len(line.played()) >= 97
    assert line.pulls[-5][1].samples == 3 * FRAME


def test_a_flood_is_bounded() -> None:
    line = Line()
    for packet in stream(90):
        line.buffer.add(packet)
    assert line.buffer.stats.dropped >= 90 - 64
    line.now = 1.0
    assert line.buffer.pull().kind is PullKind.PLAY


def test_nothing_reaches_aiortcs_decoder() -> None:
    buffer = JitterBuffer(capacity=16, prefetch=4)
    assert buffer.add(stream(1)[0]) == (False, None)
