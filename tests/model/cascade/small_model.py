"""SmolLM2 (135 M weights of 4 bits) on llama.cpp's server, in a process of its own that ends with its stdin.

python -m tests.model.cascade.small_model FILE PORT
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serves until nobody holds its stdin any more."""
    from xllamacpp import CommonParams, Server

    given = CommonParams()
    given.model.path = sys.argv[1]
    given.n_ctx = 2048
    given.n_parallel = 1  # one answer at a time: who asks while it is made waits
    given.cpuparams.n_threads = 1
    given.sampling.temp = 0.0
    given.hostnames = ["127.0.0.1"]
    given.port = int(sys.argv[2])
    server = Server(given)  # noqa: F841  # it serves while it is held
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
