"""Two ports of the real library, one listening to the other.

    python -m tests.gateway.phone.port_pair RATE_HZ COUNT < played > heard

Plays what stdin holds on one port, and writes the first COUNT frames that the other heard to stdout.
A process of its own: pjsua2 has one endpoint per process.
"""

from __future__ import annotations

import os
import sys
import threading

import pjsua2 as pj

from gateway.phone.pcm_port import PcmPort


class Mouth(PcmPort):
    def __init__(self, rate_hz: int, sound: bytes) -> None:
        super().__init__("mouth", rate_hz)
        size = self.frame_bytes
        self.frames = [sound[at : at + size] for at in range(0, len(sound), size)]

    def pull(self) -> bytes | None:
        return self.frames.pop(0) if self.frames else None


class Ear(PcmPort):
    def __init__(self, rate_hz: int, count: int) -> None:
        super().__init__("ear", rate_hz)
        self.heard: list[bytes] = []
        self.count = count
        self.full = threading.Event()

    def push(self, pcm: bytes | None) -> None:
        if pcm is not None:
            self.heard.append(pcm)
        if len(self.heard) >= self.count:
            self.full.set()


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # pjlib chats there before it can be told not to
    rate_hz, count = int(sys.argv[1]), int(sys.argv[2])
    sound = sys.stdin.buffer.read()
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = 0
    media = config.medConfig
    media.clockRate = media.sndClockRate = rate_hz
    media.channelCount, media.audioFramePtime, media.ptime = 1, 20, 20
    media.sndAutoCloseTime = -1
    endpoint.libInit(config)
    endpoint.libStart()
    mouth, ear = Mouth(rate_hz, sound), Ear(rate_hz, count)
    endpoint.audDevManager().setNullDev()
    mouth.startTransmit(ear)
    ear.full.wait(10)
    os.write(out, b"".join(ear.heard[:count]))
    os._exit(0)  # no pj object may outlive its library


if __name__ == "__main__":
    main()
