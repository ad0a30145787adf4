"""The way into each process of the gateway, so that none ends without saying why.

    python -m gateway.run.entry FILE MODULE:FUNCTION ARGUMENTS…

imports MODULE and calls FUNCTION, a click command or one that reads `sys.argv`. Whatever that fails with, a
package that is missing included, is written to FILE (`gateway.config.failure`), which is named for the
process. Nothing heavy is imported here, since that may be what is missing.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Final

from consent import core_files
from gateway.config import failure
from gateway.config.notes import named

UNUSED: Final = ("rich", "pygments", "opentelemetry")
"""What structlog, httpx and redis load when they find it: 5 MB in each process, for a console and for traces
that no process of the gateway has."""


def leave_out_unused() -> None:
    """Has each of `UNUSED` seem to be absent from now on."""
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # to import it says that it is not there


def live(path: Path, place: str, argv: list[str]) -> int:
    """Calls the function at `place` ("module:function") with `argv`; returns the process's exit status."""
    core_files.leave_none()
    named(path.stem)
    path.unlink(missing_ok=True)
    sys.argv[1:] = argv
    if place.startswith("gateway."):
        leave_out_unused()
    else:  # engines load what they like
        for name in UNUSED:
            if sys.modules.get(name, name) is None:
                del sys.modules[name]
    try:
        module, name = place.split(":")
        function = getattr(importlib.import_module(module), name)
        if hasattr(function, "main"):  # a click command; by itself it would print its error and only exit
            function.main(argv, prog_name=place, standalone_mode=False)
        else:
            function()
    except SystemExit as error:
        if not error.code:
            return 0
        failure.tell(path, error)
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        failure.tell(path, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(live(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
