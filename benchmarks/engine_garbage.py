"""How long the collector stops an engine: `python -m benchmarks.engine_garbage CHECKPOINT [--calls 400]`.

Loads the engine as its own process does, and times a full collection with all that the libraries and the
weights brought; after they were frozen (`model.worker`); and with open calls that have spoken and heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import time
from pathlib import Path

import click
import numpy as np
import torch

from consent.grants.grant import VoiceGrant, hash_voice
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from model import engines
from model.api import RATE_HZ, Conversation, Engine, Reference, Sound
from tests.model.chroma.serving.test_server import noise, short_folder

SPEECH_S = 1.0
SOUNDS = 3
"""of each reply, before it is interrupted"""


def collection(what: str) -> None:
    """Prints what a full collection looks at, and the least time of three."""
    gc.collect()  # what there is to free is free
    took = []
    for _ in range(3):
        began = time.perf_counter()
        gc.collect()
        took.append(time.perf_counter() - began)
    print(f"{what:44s} {len(gc.get_objects()):9,d} objects {1000 * min(took):8.1f} ms", flush=True)


async def opened(engine: Engine, grant: VoiceGrant) -> Conversation:
    clip, words = noise(1.0, 9), "The words of the clip."
    voice_hash = hash_voice(clip.tobytes(), words)
    reference = Reference("heart", voice_hash, clip, words, stock=True)
    return await engine.open(dataclasses.replace(grant, voice_hash=voice_hash), reference)


async def talk(conversation: Conversation, turns: int) -> None:
    for turn in range(turns):
        pcm = noise(SPEECH_S, turn)
        for at in range(0, len(pcm), RATE_HZ // 10):
            conversation.hear(np.ascontiguousarray(pcm[at : at + RATE_HZ // 10]))
        await conversation.commit()
        sounds = 0
        async with contextlib.aclosing(conversation.respond(f"item {turn}")) as outputs:  # type: ignore[type-var]  # it is an async generator
            async for output in outputs:
                sounds += isinstance(output, Sound)
                if sounds == SOUNDS:
                    break


async def run(calls: int, turns: int) -> None:
    engine = await engines.chroma()
    collection("loaded")
    gc.freeze()
    collection("loaded and frozen")
    with short_folder() as folder:
        office = ConsentOffice.open(f"sqlite:///{folder}/consent.sqlite", folder)
        scopes = [Scope("heart", "test", "test", "en", f"call-{number}") for number in range(calls)]
        held = [await opened(engine, office.grant(scope)) for scope in scopes]
        for conversation in held:
            await talk(conversation, turns)
        collection(f"frozen, {calls} calls open after {turns} turns each")
        for conversation in held:
            await conversation.close()
        collection("frozen, all of them closed")
        office.close()
    await engine.close()
    gc.unfreeze()  # libraries say at the end that what is frozen leaks


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--calls", default=400, help="conversations that are open at once")
@click.option("--turns", default=1, help="turns of each")
def main(checkpoint: Path, calls: int, turns: int) -> None:
    """Times full collections of an engine's process."""
    torch.set_num_threads(1)
    os.environ |= {
        "VOICEGATE_CHROMA": str(checkpoint),
        "VOICEGATE_ENGINE_CALLS": str(calls),
        "VOICEGATE_CHROMA_CONTEXT": "512",
    }
    asyncio.run(run(calls, turns))


if __name__ == "__main__":
    main()
