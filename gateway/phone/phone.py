"""The test phone's own process: up to four outgoing calls with pjsua2, one plan in, one report out.

    python -m gateway.phone.phone < plan.json > report.json

`gateway.cli.caller.testphone` is what people and tests use; it makes the plan and reads the report
(`phone_plan`). The phone is a process of its own, because pjsua2 allows one endpoint per process and must not
live beside numpy.

The phone takes turns as a person does: when it is to listen, it goes on when the other side has spoken and is
silent, or has been silent for too long. Sound is measured on the bridge's clock, as an ear would: after the
jitter buffer; packets are measured when they come.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pjsua2 as pj

from gateway.errors import RpcError
from gateway.ipc import codec
from gateway.phone.callback import reason_of
from gateway.phone.pcm_port import FRAME_MS, check_frame_layout
from gateway.phone.phone_call import PhoneCall
from gateway.phone.phone_ear import SPAN_S, PhoneEar
from gateway.phone.phone_loop import Loop
from gateway.phone.phone_plan import CODEC_IDS, CallPlan, PhoneOutcome, PhonePlan
from gateway.phone.phone_wire import PhoneWires

SRTP_USE: Final = {
    "required": pj.PJMEDIA_SRTP_MANDATORY,
    "optional": pj.PJMEDIA_SRTP_OPTIONAL,
    "off": pj.PJMEDIA_SRTP_DISABLED,
}


class Softphone:
    """The process's endpoint and its calls."""

    def __init__(self, plan: PhonePlan) -> None:
        self.plan = plan
        self.loop = Loop()
        self.wires = PhoneWires(self.loop)
        self.calls: list[PhoneCall] = []
        self._endpoint = pj.Endpoint()
        self._accounts: list[pj.Account] = []
        self._start_library()
        check_frame_layout()

    def _start_library(self) -> None:
        endpoint, plan = self._endpoint, self.plan
        endpoint.libCreate()
        config = pj.EpConfig()
        config.logConfig.level = config.logConfig.consoleLevel = 0
        agent, media = config.uaConfig, config.medConfig
        agent.maxCalls, agent.threadCnt, agent.mainThreadOnly = 4, 1, False
        agent.userAgent = "voicegate call"
        media.clockRate = media.sndClockRate = plan.rate_hz
        media.channelCount, media.quality, media.noVad, media.ecTailLen = 1, 8, True, 0
        media.audioFramePtime = media.ptime = FRAME_MS
        media.jbInit, media.jbMinPre, media.jbMaxPre, media.jbMax = 20, 20, 60, 200
        endpoint.libInit(config)
        endpoint.audDevManager().setNullDev()
        for known in endpoint.codecEnum2():
            endpoint.codecSetPriority(known.codecId, 0)
        for rank, name in enumerate(plan.codecs):
            endpoint.codecSetPriority(CODEC_IDS[name], 250 - rank)
        transport = pj.TransportConfig()
        transport.boundAddress = plan.address
        for kind in (pj.PJSIP_TRANSPORT_UDP, pj.PJSIP_TRANSPORT_TCP):
            endpoint.transportCreate(kind, transport)
        endpoint.libStart()

    def _account(self, plan: CallPlan) -> pj.Account:
        config = pj.AccountConfig()
        host = plan.uri.split("@")[-1].split(";")[0].split(":")[0].rstrip(">")
        config.idUri = f"sip:{plan.user or plan.caller}@{host}"
        if plan.user:
            config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", plan.user, 0, plan.password))
        media = config.mediaConfig
        media.transportConfig.boundAddress = self.plan.sound_address or self.plan.address
        media.srtpUse, media.srtpSecureSignaling = SRTP_USE[self.plan.srtp], 0
        media.lockCodecEnabled = not self.plan.takes_one_codec
        media.transportConfig.port = media.transportConfig.portRange = 20000
        media.transportConfig.randomizePort = True
        account = pj.Account()
        account.create(config)
        self._accounts.append(account)
        return account

    def run(self) -> list[PhoneOutcome]:
        for n, plan in enumerate(self.plan.calls):
            behind = Path(plan.background).read_bytes() if plan.background else b""
            ear = PhoneEar(f"ear-{n}", self.plan.rate_hz, behind)
            call = PhoneCall(self.plan, self.wires, self._account(plan), plan, ear)
            self.calls.append(call)
            self.loop.later(plan.after_s, call.dial)
        self._turn()
        self.loop.run()
        return [call.report() for call in self.calls]

    def _turn(self) -> None:
        now = time.monotonic()
        for call in self.calls:
            try:
                call.go_on(now)
            except (pj.Error, OSError) as error:
                call.give_up(f"failed: {reason_of(error)}")
        if all(call.over for call in self.calls):
            self.loop.later(0.1, self.loop.stop)
        else:
            self.loop.later(SPAN_S, self._turn)


def main() -> None:
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # pjlib chats there before it can be told not to
    gc.disable()  # a Call freed in the wrong thread hangs up somebody else's
    sys.setswitchinterval(0.0005)
    answer: dict[str, Any]
    try:
        phone = Softphone(codec.from_json(PhonePlan, codec.unpacked(sys.stdin.buffer.read()), "the plan"))
        answer = {"outcomes": [asdict(outcome) for outcome in phone.run()]}
        for call in phone.calls:
            if call.plan.record:
                Path(call.plan.record).write_bytes(call.ear.heard)
    except (RpcError, OSError) as error:
        answer = {"error": str(error)}
    except pj.Error as error:
        answer = {"error": reason_of(error)}
    with os.fdopen(report, "w") as file:
        json.dump(answer, file)
    os._exit(0)  # no pj object may outlive its library: no destructor runs


if __name__ == "__main__":
    main()
