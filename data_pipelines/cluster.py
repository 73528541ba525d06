"""Where the work is done: threads, local processes, a scheduler's address, or a batch queue."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from data_pipelines.errors import InputError, unknown_name

log = logging.getLogger(__name__)
QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
PLACES = ("threads", "processes", *QUEUES, "tcp://HOST:PORT")
RETRIES = 3


@dataclass
class Cluster:
    """Where to build.

    Attributes:
        where: `threads` of this process; `processes` on this machine, one thread each; the address
            `tcp://HOST:PORT` of a running Dask scheduler; or a batch queue: `slurm`, `pbs`, `sge`,
            `lsf` (needs dask-jobqueue).
        workers: threads, processes or jobs; 0 is one a core of this machine. Not used with an
            address.
        queue: arguments of dask-jobqueue, such as `{cores: 1, memory: 4GB, walltime: "01:00:00"}`.
    """

    where: str = "threads"
    workers: int = 0
    queue: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the place.

        Raises:
            InputError: an unknown place, or a negative number of workers.
        """
        known = self.where in ("threads", "processes", *QUEUES)
        if not known and not self.where.startswith(("tcp://", "tls://")):
            raise unknown_name("`cluster.where`:", self.where, PLACES)
        if self.workers < 0:
            raise InputError(f"`cluster.workers` must not be negative, got {self.workers}.")

    @property
    def number(self) -> int:
        """Workers to start."""
        return self.workers or cores()


def cores() -> int:
    """Cores that this process may use; macOS tells only those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compute(
    function: Callable[[Any, int], Any],
    shared: Any,
    items: Sequence[int],
    cluster: Cluster,
    *,
    title: str = "",
    progress: bool = False,
) -> None:
    """Calls ``function(shared, item)`` for every item, on all workers.

    What is returned is thrown away: the function writes its result. An item whose worker dies is
    done again by another worker.

    Args:
        function: of a module, so that other processes can import it.
        shared: the same for all items; sent to each worker once.
        items: numbers.
        cluster: where.
        title: of the progress bar.
        progress: shows a progress bar.

    Raises:
        InputError: the scheduler does not answer, or workers died again and again.
    """
    if not items:
        return
    with tqdm(total=len(items), desc=title, disable=not progress, unit="part") as bar:
        if cluster.where == "threads":
            for _ in _in_threads(function, shared, items, min(cluster.number, len(items))):
                bar.update()
            return
        with _client(cluster) as client:
            log.info("working on %s", client.dashboard_link or client.scheduler.address)
            for _ in _on_workers(client, function, shared, items):
                bar.update()


def _in_threads(
    function: Callable[[Any, int], Any], shared: Any, items: Iterable[int], workers: int
) -> Iterator[None]:
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(function, shared, item) for item in items]
        try:
            for job in jobs:
                job.result()
                yield
        finally:  # after an error or Ctrl-C nothing new is begun
            for job in jobs:
                job.cancel()


def _on_workers(
    client: Any, function: Callable[[Any, int], Any], shared: Any, items: Sequence[int]
) -> Iterator[None]:
    from distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    todo = dict.fromkeys(items)
    jobs: dict[Any, int] = {}
    try:
        for attempt in range(RETRIES + 1):
            client.wait_for_workers(1)  # a queue may take hours
            (sent,) = client.scatter([shared], broadcast=True, hash=False)
            jobs = {
                client.submit(function, sent, item, pure=False, retries=RETRIES): item
                for item in todo
            }
            try:
                for job in as_completed(jobs):  # type: ignore[no-untyped-call]
                    job.result()
                    del todo[jobs[job]]
                    yield
                return
            except FutureCancelledError:  # the last worker is gone, and what was sent with it
                if attempt == RETRIES:
                    raise
                log.warning("all workers were lost; %d parts are given out again", len(todo))
    except (KilledWorker, FutureCancelledError) as error:
        raise InputError(
            f"`cluster`: workers died again and again at one part ({error}). Give each more "
            "memory, or take smaller chunks of the fields."
        ) from error
    finally:
        client.cancel(list(jobs))


@contextmanager
def _client(cluster: Cluster) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    if cluster.where.startswith(("tcp://", "tls://")):
        try:
            client = Client(cluster.where, timeout="10s")  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"`cluster.where` must be the address of a running scheduler, got "
                f"{cluster.where}, which does not answer. Start one with `dask scheduler`."
            ) from error
        with client:
            yield client
        return
    if cluster.where == "processes":
        # One thread each: netCDF-C is not thread-safe. Started afresh, not forked.
        made = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=cluster.number, threads_per_worker=1, dashboard_address=None
        )
    else:
        made = _batch_queue(cluster.where, cluster.queue)
        made.scale(jobs=cluster.number)
        log.info("waiting for the first of %d jobs in the queue", cluster.number)
    with made, Client(made) as client:  # type: ignore[no-untyped-call]
        yield client


def has_memory(cluster: Cluster) -> bool:
    """Whether `queue` or dask's own settings tell the memory of a job of a batch queue."""
    import dask
    import dask_jobqueue  # noqa: F401  (which sets defaults)

    told = dask.config.get(f"jobqueue.{cluster.where}.memory", None)
    return bool(cluster.queue.get("memory") or told)


def _batch_queue(where: str, arguments: Mapping[str, Any]) -> Any:
    try:
        import dask_jobqueue
    except ImportError as error:
        raise InputError(
            f"`cluster.where: {where}` needs dask-jobqueue, which is not installed. "
            'Install it with `pip install "weather-tdr[cluster]"`.'
        ) from error
    try:
        return getattr(dask_jobqueue, QUEUES[where])(**{"cores": 1, "processes": 1, **arguments})
    except (TypeError, ValueError) as error:  # a wrong key, or one that is missing
        first = " ".join(str(error).split())
        raise InputError(
            f"`cluster.queue` must be arguments of dask-jobqueue's {QUEUES[where]}, `memory` of a "
            f"job among them, got {dict(arguments)}: {first}"
        ) from error
