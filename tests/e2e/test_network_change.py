"""A caller goes from one network to another during a call: the same call goes on, and both hear again.

The browser's machine has two ways out, each by a router with a NAT of its own; the first one fails.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from gateway.store.sip_users import console_token
from tests.browser import FLAGS, until_sync
from tests.e2e.gateway_process import House
from tests.e2e.networks import GATEWAY, INSIDE, browser_inside, ip, networks
from tests.firefox import KEEP_CONNECTION
from tests.needs import HANGS_S, need_program

pytestmark = [pytest.mark.e2e, pytest.mark.prove]

BACK_WITHIN_S = 12.0
"""The gateway gives a silent browser up after 15 s: later there is nothing to come back to."""
ASKS_EVERY_S = 8


def way(letter: str, number: int) -> str:
    """From the browser's machine by a router to the gateway's network."""
    router = f"vg-router-{letter}"
    return f"""
        link add name vg-out-{letter} type veth peer name vg-up netns {router}
        link set vg-out-{letter} master vg-lan
        link set vg-out-{letter} up
        -n {router} link add name vg-down type veth peer name vg-in-{letter} netns {INSIDE}
        -n {router} addr add 203.0.113.{250 + number}/24 dev vg-up
        -n {router} addr add 10.7.{number}.1/24 dev vg-down
        -n {router} link set vg-up up
        -n {router} link set vg-down up
        -n {INSIDE} addr add 10.7.{number}.2/24 dev vg-in-{letter}
        netns exec {router} sysctl -qw net.ipv4.ip_forward=1
    """


WAYS = f"""
    link set lo up
    link add name vg-lan type bridge
    addr add {GATEWAY}/24 dev vg-lan
    link set vg-lan up
    {way("a", 1).strip()}
    {way("b", 2).strip()}
    -n {INSIDE} link set lo up
"""
NAT = """
table ip vg {
  chain out { type nat hook postrouting priority srcnat; oifname "vg-up" masquerade; }
}
"""


def plug(letter: str, number: int, metric: int) -> None:
    """A cable is plugged in: the machine has a way out by it; the lowest metric's is taken."""
    ip("-n", INSIDE, "link", "set", f"vg-in-{letter}", "up")
    ip("-n", INSIDE, "route", "add", "default", "via", f"10.7.{number}.1", "metric", str(metric))


@pytest.fixture
def outside() -> Iterator[None]:
    with networks(("vg-router-a", "vg-router-b", INSIDE), WAYS, {"vg-router-a": NAT, "vg-router-b": NAT}):
        yield


@pytest.fixture
def microphone(say: Callable[[str], Path], tmp_path: Path) -> Path:
    """What the browser's microphone hears, over and over: a question, and silence."""
    path = tmp_path / "microphone.wav"
    sox = need_program("sox")
    question = say("what are your opening hours")
    command = [sox, question, "-r", "48000", path, "pad", "0", str(ASKS_EVERY_S)]
    subprocess.run(command, check=True, timeout=HANGS_S)
    return path


@pytest.mark.long(
    "a whole gateway, a browser in a network of its own, and two questions that are asked aloud"
)
@pytest.mark.parametrize("second", ["was-there", "comes-later", "takes-over"])
def test_a_call_goes_from_one_network_to_another(
    outside: None, microphone: Path, tmp_path: Path, second: str
) -> None:
    house = House(tmp_path / "house", host=GATEWAY)
    house.folder.mkdir()
    plug("a", 1, 200)
    if second == "was-there":
        plug("b", 2, 300)
    house.start()
    flags = [*FLAGS, f"--use-file-for-fake-audio-capture={microphone}"]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_inside(tmp_path), args=flags)
            page = browser.new_page(ignore_https_errors=True)
            page.goto(f"https://{GATEWAY}:{house.https_port}/login")
            page.locator("input").first.fill(console_token(house.folder / "data"))
            page.keyboard.press("Enter")
            expect(page.locator("#gateway-text")).to_have_text("Ready")  # its scripts run
            page.evaluate(KEEP_CONNECTION)
            page.get_by_role("button", name="Call", exact=True).click()
            question = page.locator(".you", has_text="opening hours")
            expect(question.first).to_be_visible(timeout=HANGS_S * 1000)
            before = heard(page)
            asked = question.count()

            if second == "takes-over":  # nobody says that the first one is dead
                ip("-n", "vg-router-a", "link", "set", "vg-up", "down")
                expect(page.locator("#state")).to_have_text("Connection is shaky")
            else:
                ip("-n", INSIDE, "link", "set", "vg-in-a", "down")
            if second != "was-there":
                plug("b", 2, 100)
            took = until_heard(page, before["packets"])
            print(f"second {second}: heard again after {took:.1f} s")
            assert took < BACK_WITHIN_S

            # and is heard: asks once more, and is answered
            expect(question.nth(asked)).to_be_visible(timeout=HANGS_S * 1000)
            louder = "(than) => window.heard().then((now) => now.energy > than)"
            until_sync(page, louder, heard(page)["energy"] + 0.01)
            assert heard(page)["second"]
            expect(page.locator("#state")).to_have_text("Speaking")
            page.get_by_role("button", name="Hang up", exact=True).click()
            expect(page.locator("#state")).to_have_text("Call ended")
            (call,) = page.evaluate("fetch('/api/calls').then((a) => a.json()).then((all) => all.calls)")
            assert call["caller"] == "web"
            browser.close()
    finally:
        house.stop()


HEARD = """
window.heard = async () => {
  const stats = [...(await window.connection.getStats()).values()];
  const one = stats.find((one) => one.type === 'inbound-rtp');
  const used = stats.find((one) => one.type === 'transport').selectedCandidatePairId;
  const pair = stats.find((one) => one.id === used);
  const local = stats.find((one) => one.id === pair?.localCandidateId);
  // its own address there, or what the NAT made of it (peer-reflexive)
  const second = ['10.7.2.2', '203.0.113.252'].includes(local?.address);
  return { packets: one.packetsReceived, energy: one.totalAudioEnergy, second };
}
"""


def heard(page: Page) -> dict[str, Any]:
    page.evaluate(HEARD)
    return dict(page.evaluate("window.heard()"))


def until_heard(page: Page, packets: int) -> float:
    """Seconds until our packets come again, some of them: what was on its way does not count."""
    return until_sync(
        page,
        """async (packets) => {
          const now = await window.heard();
          return now.packets > packets + 25 && now.second;
        }""",
        packets,
    )
