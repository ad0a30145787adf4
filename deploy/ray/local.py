"""A cluster of this machine alone, on loopback, until Ctrl-C: for trying out and for the tests.

    VOICEGATE_ENGINE_TOKEN=… python -m deploy.ray.local --engine embedded --keys grant-keys.json

Says `ready` when every replica can be called, at `http://127.0.0.1:<port>/<engine>`. Ctrl-C ends it at once.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from pathlib import Path

import click

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# the first is how Ray is told that its nodes are at 127.0.0.1

import ray
from ray import serve

from model.cluster import ClusterSettings, application


@click.command()
@click.option("--engine", "engines", type=click.Choice(["embedded", "chroma"]), multiple=True, required=True)
@click.option("--keys", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--front", "fronts", multiple=True, help="where each --engine gets voices: the gateway's URL")
@click.option("--replicas", default=2, help="of each engine")
@click.option("--spare", default=1, help="slots of each replica for calls whose replica died")
@click.option("--drain", default=30.0, help="seconds that a replica may finish its conversations")
@click.option("--port", default=8000, help="where Serve says which engines there are")
def main(
    engines: tuple[str, ...],
    keys: Path,
    fronts: tuple[str, ...],
    replicas: int,
    spare: int,
    drain: float,
    port: int,
) -> None:
    """Runs the cluster."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, namespace="serve")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    targets = []
    for engine, front in itertools.zip_longest(engines, fronts[: len(engines)]):
        settings = ClusterSettings(engine=engine, grant_keys=keys, front=front, spare=spare, drain_s=drain)
        app = application(
            settings,
            num_replicas=replicas,
            ray_actor_options={"num_cpus": 0},  # the cores are shared: this is no measurement
            health_check_period_s=1,
        )
        targets.append(serve.RunTarget(app, name=engine, route_prefix=f"/{engine}"))
    serve.run_many(targets)
    click.echo("ready")
    stop.wait()
    ray.shutdown()


if __name__ == "__main__":
    main()
