"""A browser behind a NAT that lets no UDP through: its call goes by a TURN server, over TCP.

Three networks of the test's own: gateway and coturn outside, a router with a NAT, and the browser inside.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from gateway.store.sip_users import console_token
from tests.browser import FLAGS, until_sync
from tests.e2e.gateway_process import House, free_port
from tests.e2e.networks import GATEWAY, INSIDE, browser_inside, networks
from tests.firefox import KEEP_CONNECTION
from tests.needs import need_program

pytestmark = [pytest.mark.e2e, pytest.mark.prove]

SECRET = "a-secret-of-gateway-and-coturn"
ROUTER = "vg-router"
WAYS = f"""
link set lo up
link add name vg-out type veth peer name vg-up netns {ROUTER}
-n {ROUTER} link add name vg-down type veth peer name vg-in netns {INSIDE}
addr add {GATEWAY}/24 dev vg-out
link set vg-out up
-n {ROUTER} addr add 203.0.113.254/24 dev vg-up
-n {ROUTER} addr add 10.7.0.1/24 dev vg-down
-n {ROUTER} link set vg-up up
-n {ROUTER} link set vg-down up
-n {INSIDE} addr add 10.7.0.2/24 dev vg-in
-n {INSIDE} link set lo up
-n {INSIDE} link set vg-in up
-n {INSIDE} route add default via 10.7.0.1
netns exec {ROUTER} sysctl -qw net.ipv4.ip_forward=1
"""
NAT = """
table ip vg {
  chain out { type nat hook postrouting priority srcnat; oifname "vg-up" masquerade; }
  chain through { type filter hook forward priority filter; meta l4proto udp drop; }
}
"""


@pytest.fixture
def outside() -> Iterator[None]:
    need_program("turnserver", "coturn")
    with networks((ROUTER, INSIDE), WAYS, {ROUTER: NAT}):
        yield


@pytest.fixture
def turn(outside: None, tmp_path: Path) -> Iterator[str]:
    """A coturn outside; its URI."""
    port = free_port()
    log = (tmp_path / "coturn.log").open("wb")
    server = subprocess.Popen(
        [
            "turnserver", "-n", "--listening-ip", GATEWAY, "--relay-ip", GATEWAY,
            "--listening-port", str(port), "--use-auth-secret", "--static-auth-secret", SECRET,
            "--realm", "voicegate", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout",
            "--pidfile", str(tmp_path / "coturn.pid"), "--userdb", str(tmp_path / "turndb"),
        ],
        stdout=log, stderr=log, cwd=tmp_path,
    )  # fmt: skip
    try:
        time.sleep(1.0)
        assert server.poll() is None, (tmp_path / "coturn.log").read_text()
        yield f"turn:{GATEWAY}:{port}?transport=tcp"
    finally:
        server.terminate()
        server.wait(10)
        log.close()


@pytest.mark.long("a whole gateway, a TURN server and a browser, each in a network of its own")
def test_a_call_through_a_nat_that_stops_udp(turn: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    house = House(tmp_path / "house", host=GATEWAY, ice_servers=turn, turn_secret_file=secret)
    house.folder.mkdir()
    house.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_inside(tmp_path), args=FLAGS)
            page = browser.new_page(ignore_https_errors=True)
            page.goto(f"https://{GATEWAY}:{house.https_port}/login")
            page.locator("input").first.fill(console_token(house.folder / "data"))
            page.keyboard.press("Enter")
            expect(page.locator("#gateway-text")).to_have_text("Ready")  # its scripts run
            page.evaluate(KEEP_CONNECTION)
            page.get_by_role("button", name="Call", exact=True).click()
            expect(page.locator("#conversation")).to_contain_text(
                "a machine with an AI voice", timeout=60_000
            )
            until_sync(
                page,
                """async () => {
                  const stats = [...(await window.connection.getStats()).values()];
                  const used = stats.find((one) => one.type === 'transport').selectedCandidatePairId;
                  const pair = stats.find((one) => one.id === used);
                  const local = stats.find((one) => one.id === pair.localCandidateId);
                  const heard = stats.find((one) => one.type === 'inbound-rtp').totalAudioEnergy;
                  return local.candidateType === 'relay' && heard > 0.001;
                }""",
            )
            page.get_by_role("button", name="Hang up", exact=True).click()
            expect(page.locator("#state")).to_have_text("Call ended")
            browser.close()
    finally:
        house.stop()
