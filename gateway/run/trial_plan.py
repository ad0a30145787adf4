"""`python -m gateway.run.trial_plan`: whether the dialplans load now, tried in a process of its own.

A front that is to take other plans asks this first: recordings are read here, and tried for the mark, and the
front keeps nothing of it. Prints one JSON object: `version` of the plans, or `error`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from consent.errors import ConsentError
from consent.service.front_office import FrontOffice
from consent.service.office_client import OfficeClient
from gateway.config.paths import grant_keys_path, office_socket
from gateway.config.settings import Settings, load
from gateway.dialplan.house_plan import read_house_plan
from gateway.errors import DialplanError, VoicegateError
from gateway.run.trial_mark import check_marks
from model.ears import SOCKET_VARIABLE


def trial(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The plans' version, or why they do not load into the house that `environ` tells of."""
    client = OfficeClient(office_socket(settings))
    try:
        plan = read_house_plan(settings, FrontOffice(client, grant_keys_path(settings)).names())
        check_marks(plan)
        if plan.hears_languages and SOCKET_VARIABLE not in environ:
            why = "it leads callers by their language, and this house was started without ears"
            raise DialplanError(f"{plan.folder}: {why}; restart the gateway to take it")
    except (VoicegateError, ConsentError) as error:
        return {"error": str(error)}
    finally:
        client.close()
    return {"version": plan.version}


def main() -> None:
    """Tries it for the settings in force."""
    print(json.dumps(trial(load())))


if __name__ == "__main__":
    main()
