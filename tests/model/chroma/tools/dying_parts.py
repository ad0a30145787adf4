"""Stands for `gpu_parts` in a test: what it finds is fixed, and it dies where a GPU might kill it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    order: dict[str, Any] = json.load(sys.stdin)
    folder = Path(order["asked"]["folder"])

    def say(**line: Any) -> None:
        print(json.dumps(line), flush=True)

    def do(name: str) -> bool:
        """Whether it must be done; each time it is leaves a mark."""
        if name in order["known"]:
            return False
        with (folder / "done").open("a") as done:
            done.write(f"{sys.argv[1]} {name}\n")
        say(name=name, found={"under way": True})
        return True

    if sys.argv[1] == "kernels":  # the second of three never returns
        for name in ("first", "deadly", "third"):
            if do(name):
                if name == "deadly":
                    print("an illegal memory access", file=sys.stderr, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                say(name=name, found={"passed": True})
    elif sys.argv[1] == "golden":
        if do("wrong"):
            say(name="wrong", found={"passed": False, "off": 0.5})
    elif sys.argv[1] == "graphs" and do("hangs"):
        while not (folder / "thaw").exists():
            time.sleep(0.05)
        say(name="hangs", found={"passed": True})
    elif sys.argv[1] == "bench":
        raise RuntimeError("no such device")
    elif sys.argv[1] == "official":
        say(end="missing", why="not at hand")
        return
    say(end="done", why="")


if __name__ == "__main__":
    main()
