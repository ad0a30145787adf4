"""Softphones register, as people have them: baresip over UDP and TCP, and the front dies under them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.ipc.binding import Binding
from gateway.store.registry import Registry
from gateway.store.sip_bindings import SipBindings
from tests.e2e.gateway_process import House
from tests.needs import need_program

MODULES = Path("/usr/lib/baresip/modules")


class Softphone:
    """A baresip that registers as alice; `end` has it quit, which takes its registration back."""

    def __init__(
        self,
        folder: Path,
        port: int,
        registrar: str,
        transport: str,
        password: str,
        more: str = "",
        config: str = "",
    ) -> None:
        """`more`: further words of its account; `config`: further lines of its settings."""
        folder.mkdir(parents=True)
        address = registrar.partition(":")[0]
        modules = ["uuid", "account", "g711"]
        (folder / "config").write_text(
            f"sip_listen {address}:{port}\nmodule_path {MODULES}\n{config}"
            + "".join(f"module {name}.so\n" for name in modules)
            + "module_app menu.so\n"
        )
        account = f"<sip:alice@{registrar};transport={transport}>;auth_pass={password};regint=120"
        flow = f'sipnat=outbound;outbound="sip:{registrar};transport={transport}"'  # RFC 5626
        (folder / "accounts").write_text(f"{account};{flow}{more}\n")
        (folder / "contacts").write_text("")
        self.log = folder / "log"
        command = [need_program("baresip"), "-4", "-s", "-n", "lo", "-f", str(folder)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def said(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)


def users(house: House) -> list[str]:
    command = [sys.executable, "-m", "gateway.cli", "sip", "users"]
    run = subprocess.run(command, check=True, env=house.environ, capture_output=True, text=True)
    return run.stdout.splitlines()


def bindings(house: House) -> list[Binding]:
    """What the front keeps."""
    registry = Registry.read(f"sqlite:///{house.folder / 'data' / 'voicegate.db'}")
    assert registry is not None
    try:
        return SipBindings(registry).listed()
    finally:
        registry.close()


def flows(house: House) -> set[str]:
    return {one.transport for one in bindings(house)}


def softphones_register_and_the_front_dies_under_them(
    network: str, house: House, folder: Path, password: str
) -> None:
    """Of a house on that address with a user alice. Its front is another one afterwards."""
    phones: list[Softphone] = []
    try:
        where = f"{network}:{house.sip_port}"
        for port, transport in ((5070, "udp"), (5074, "tcp")):
            phones.append(Softphone(folder / transport, port, where, transport, password))
        phones.append(Softphone(folder / "stranger", 5078, where, "udp", "battery-staple"))
        house.wait_for("both", lambda: len(bindings(house)) == 2, 20)
        assert not any(one.lost_at for one in bindings(house))
        house.wait_for("a refusal", lambda: phones[2].said("reg: sip:alice"), 20)
        assert not phones[2].said("200 OK")
        phones[2].end()
        shown = users(house)
        assert shown[0] == "alice"
        assert {f"{network} by {transport}" for transport in ("udp", "tcp")} == {
            line.strip().partition(",")[0] for line in shown if line.startswith("  ")
        }
        first = house.kill("front")
        house.wait_for("a new front", lambda: house.pids().get("front") != first and house.ready(), 30)
        kept = {one.transport: one for one in bindings(house)}
        assert set(kept) == {"udp", "tcp"}, "both are known to the front that comes back"
        assert kept["udp"].lost_at is None
        phones[0].end()
        house.wait_for("it takes its registration back", lambda: "udp" not in flows(house), 10)
    finally:
        for phone in phones:
            phone.end()
