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


def main() -> int:
    """Calls the function that the command line names; returns the process's exit status."""
    core_files.leave_none()
    path, place = Path(sys.argv[1]), sys.argv[2]
    named(path.stem)
    path.unlink(missing_ok=True)
    del sys.argv[1:3]
    if place.startswith("gateway."):  # engines load what they like
        for name in UNUSED:
            sys.modules[name] = None  # type: ignore[assignment]  # to import it says that it is not there
    try:
        module, name = place.split(":")
        function = getattr(importlib.import_module(module), name)
        if hasattr(function, "main"):  # a click command; by itself it would print its error and only exit
            function.main(sys.argv[1:], prog_name=place, standalone_mode=False)
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
    sys.exit(main())
