"""An engine in a process of its own whose recogniser hears what its command line says, whatever is said.

    python -m tests.e2e.scripted_engine WORDS FAILURE ARGUMENTS OF model.server…

The second utterance of each conversation fails, by an error whose text is FAILURE.
"""

from __future__ import annotations

import sys

from model import engines
from model.api import Engine, Understood
from model.server import main
from tests.model.scripted import ScriptedConversation, ScriptedEngine


async def scripted() -> Engine:
    """In the place of the embedded one."""
    return ScriptedEngine()


if __name__ == "__main__":
    hears, failure = sys.argv.pop(1), sys.argv.pop(1)

    async def commit(conversation: ScriptedConversation) -> Understood:
        """What the recogniser makes of an utterance."""
        conversation.utterances.append(conversation.heard[0])
        conversation.heard.clear()
        if len(conversation.utterances) == 2:
            raise ValueError(f"{failure} {hears}")
        return Understood(1.0, hears, 0.9)

    ScriptedConversation.commit = commit  # type: ignore[method-assign]
    engines.embedded = scripted
    main()
