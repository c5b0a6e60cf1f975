"""What the system lets this user have, looked at before Ray is started: Ray would hang or crash without saying why."""

import resource
from collections.abc import Callable

from search.errors import ConfigurationError

FILES = 1024  # sockets, logs and libraries of a driver and its raylet; each process counts for itself
PROCESSES = 1000  # threads count, too; a raylet, its servers and one worker have some 300


def check_limits() -> None:
    """Raise this process's limit of open files if it may be raised; refuse limits that are too low for Ray.

    Raises:
        ConfigurationError: with every limit that is too low.
    """
    problems = [
        *_problems("open files", "ulimit -n", FILES, _raised(resource.RLIMIT_NOFILE, FILES)),
        *_problems("processes and threads", "ulimit -u", PROCESSES, _raised(resource.RLIMIT_NPROC, PROCESSES)),
    ]
    if problems:
        raise ConfigurationError(problems)


def _raised(
    kind: int,
    least: int,
    get: Callable[[int], tuple[int, int]] = resource.getrlimit,
    put: Callable[[int, tuple[int, int]], None] = resource.setrlimit,
) -> int:
    """The limit, after it was raised to what is needed and allowed; -1 where there is none."""
    soft, hard = get(kind)
    allowed = least if hard == resource.RLIM_INFINITY else min(least, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        put(kind, (allowed, hard))
        return allowed
    return soft


def _problems(what: str, command: str, least: int, limit: int) -> list[str]:
    if limit == resource.RLIM_INFINITY or limit >= least:
        return []
    return [f"this system must allow {least} {what} to start Ray, but allows {limit}; raise it (`{command} {least}`)"]
