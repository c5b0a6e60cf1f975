"""What a search replaces inside Ray while it runs, where Ray has no setting for it; its version is pinned for this."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, **parts: Any) -> Iterator[None]:
    """A module or class with other attributes in these places, until the end."""
    theirs = {name: getattr(owner, name) for name in parts}
    _put(owner, parts)
    try:
        yield
    finally:
        _put(owner, theirs)


def own_signals() -> AbstractContextManager[None]:
    """Ray's start would replace what SIGTERM does here, by something that ends this process without a word."""
    from ray._private import utils

    return replaced(utils, set_sigterm_handler=lambda handler: None)


def raylet_unheard() -> AbstractContextManager[None]:
    """The node's own words about dead workers go into the middle of what is printed; the ledger has the reasons."""
    from ray._private import worker

    return replaced(worker, print_to_stdstream=lambda *data, **how: None)


def bare_node() -> AbstractContextManager[None]:
    """A Ray that starts here without the processes that scale clusters, copy workers' words and serve a dashboard.

    Each is a Python program of its own, and the start waits for the last of them even where it is to show nothing.
    """
    from ray._private.node import Node

    return replaced(Node, start_monitor=_absent, start_log_monitor=_absent, start_api_server=_absent)


def ready_workers() -> AbstractContextManager[None]:
    """Trials in the workers that a Ray started here has ready, because all of them share this process's environment.

    Tune hands each trial some variables of its own and of this process. For a trial with variables Ray makes another
    worker, by way of an agent; on a cluster that runs elsewhere they are needed.
    """
    from ray.tune.execution import class_cache

    return replaced(class_cache, DEFAULT_ENV_VARS={}, ENV_VARS_TO_PROPAGATE=set())


def no_last_steps() -> AbstractContextManager[None]:
    """A search that is cut off ends its workers in the middle of their steps, for which Tune would wait ten seconds.

    Nothing is lost with them: what they reported is in the ledger, and trials go on from their own checkpoints.
    """
    import ray
    from ray.tune.execution.tune_controller import TuneController

    cleanup = TuneController.cleanup

    def ended(controller: Any) -> None:
        for trial in controller._trial_to_actor:
            if worker := trial.temporary_state.ray_actor:
                ray.kill(worker)
        cleanup(controller)

    return replaced(TuneController, cleanup=ended)


@contextmanager
def every_death_told() -> Iterator[None]:
    """Tune knows two kinds of errors of a worker; any other, such as Ray's memory monitor's, would end the search: when
    it comes, or when Tune asks a dead worker for its first result.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import RayActorError, RayError, RayTaskError
    from ray.tune.experiment import Trial

    task_failed, first_result = RayActorManager._actor_task_failed, Trial._get_default_result_or_future

    def failed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        task_failed(manager, tracked_actor_task, exception if known else RayActorError(error_msg=str(exception)))

    def result(asked: Any) -> Any:
        try:
            return first_result(asked)
        except RayError:
            asked._default_result_or_future = None
            return None

    with (
        replaced(RayActorManager, _actor_task_failed=failed),
        replaced(Trial, _get_default_result_or_future=result),
    ):
        yield


def _put(owner: Any, parts: dict[str, Any]) -> None:
    for name, part in parts.items():
        setattr(owner, name, part)


def _absent(node: Any, **how: Any) -> None:
    """Start nothing."""
