# Ray has no complete types, and isn't there wherever this package is checked.
# mypy: disable-error-code="import-not-found, import-untyped, no-any-return, unused-ignore"
"""HERALD on a Ray cluster: `pip install herald-engine[ray]`.

    from ray import serve
    import herald_engine.ray

    serve.run(herald_engine.ray.app("/models/model.gguf", replicas=(2, 8), threads=8))

`batch` runs a model over a Ray dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from ray import serve
from ray.serve.config import RequestRouterConfig

from ._options import Path
from ._prefix import IMBALANCE, PREFIX_CHARACTERS
from ._ray_serve import Gateway, PrefixRouter, Replica
from ._types import GenerateOptions
from .engine import Engine
from .scheduler import Scheduler

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["app", "batch", "configured"]


def app(
    model: Path,
    *,
    replicas: Union[int, tuple[int, int]] = 1,
    threads: int = 1,
    parallel: int = 32,
    gateways: int = 1,
    prefix_characters: int = PREFIX_CHARACTERS,
    imbalance: int = IMBALANCE,
    drain_seconds: float = 60,
    health_seconds: float = 5,
    autoscaling: Optional[Mapping[str, Any]] = None,
    server_options: Optional[Mapping[str, Any]] = None,
) -> Any:
    """A Ray Serve application that answers with the APIs of `host serve`, streams included.

    model: a file that each node has, or a name that `pull` knows.
    replicas: how many servers, or (least, most) of them, between which Serve scales.
    threads: of each, for which so many CPUs are reserved.
    parallel: how many requests a replica runs at once; others wait before it.
    gateways: processes that take requests from Serve's proxies.
    prefix_characters, imbalance: requests whose prompts begin with the same so many characters (65,536) go to the same
    replica, unless it has so many requests (8) more than the next.
    drain_seconds: how long running answers may go on when a replica is taken down.
    health_seconds: how often each is asked whether it is well; one that isn't is replaced.
    autoscaling: further fields of Serve's `autoscaling_config`.
    server_options: further options of `herald_engine.server.Server`, such as `api_key` and `cache_dir`.
    """
    scale: dict[str, Any] = {"num_replicas": replicas}
    if isinstance(replicas, tuple):
        least, most = replicas
        usual = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": max(1, parallel // 2)}
        scale = {"autoscaling_config": {**usual, **(autoscaling or {})}}
    options = {"threads": threads, "parallel": parallel, **(server_options or {})}
    # Its types know only decorators.
    deployment: Any = serve.deployment
    router: Any = RequestRouterConfig
    servers = deployment(
        Replica,
        name="herald",
        ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=parallel,
        health_check_period_s=health_seconds,
        graceful_shutdown_timeout_s=drain_seconds,
        request_router_config=router(request_router_class=PrefixRouter, request_router_kwargs={"imbalance": imbalance}),
        **scale,
    )
    gateway = deployment(
        Gateway,
        name="herald-gateway",
        num_replicas=gateways,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=10_000,
        graceful_shutdown_timeout_s=drain_seconds,
    )
    return gateway.bind(servers.bind(model, drain_seconds, options), prefix_characters)


def configured(arguments: dict[str, Any]) -> Any:
    """`app` for configuration files: `import_path: herald_engine.ray:configured`, with its arguments in `args`."""
    given = dict(arguments)
    if isinstance(given.get("replicas"), list):
        # YAML has no tuples.
        given["replicas"] = tuple(given["replicas"])
    return app(given.pop("model"), **given)


class Worker:
    """Answers the rows of a batch together, with an engine in its own process."""

    def __init__(
        self, model: Path, prompt: str, output: str, parallel: int, engine: Mapping[str, Any], options: GenerateOptions
    ) -> None:
        self._engine = Engine(model, **engine)
        self._prompt, self._output, self._parallel, self._options = prompt, output, parallel, options

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Adds the column of answers to a batch."""
        prompts = list(rows[self._prompt])
        with Scheduler(self._engine, max_running=self._parallel, max_waiting=max(1, len(prompts))) as scheduler:
            requests = []
            for prompt in prompts:
                if isinstance(prompt, str):
                    requests.append(scheduler.submit(prompt, **self._options))
                else:
                    requests.append(scheduler.submit(messages=[dict(turn) for turn in prompt], **self._options))
            return {**rows, self._output: [request.result().text for request in requests]}


def batch(
    dataset: Any,
    model: Path,
    *,
    prompt: str = "prompt",
    output: str = "generated",
    replicas: int = 1,
    threads: int = 1,
    parallel: int = 32,
    batch_size: int = 128,
    engine: Optional[Mapping[str, Any]] = None,
    **options: Unpack[GenerateOptions],
) -> Any:
    """A Ray dataset with a column of answers to another one, whose rows are texts or lists of messages.

    replicas: processes, with `threads` CPUs each, that run `parallel` rows at once.
    engine: further options of `Engine`.
    """
    from ray.data import ActorPoolStrategy

    return dataset.map_batches(
        Worker,
        fn_constructor_kwargs={
            "model": model,
            "prompt": prompt,
            "output": output,
            "parallel": parallel,
            "engine": {"threads": threads, **(engine or {})},
            "options": options,
        },
        batch_size=batch_size,
        compute=ActorPoolStrategy(size=replicas),
        num_cpus=threads,
    )
