"""A parent of several server processes on one port: it starts them, replaces those that die, and stops all.

The parent serves no calls. It holds the ports, runs the embedded PostgreSQL if there is one, and migrates the schema.
Workers are new interpreters (not forks, which gRPC doesn't survive) in their own sessions: a terminal's Ctrl-C reaches
them only through the parent.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import structlog

from checkpointd_server import __version__, app
from checkpointd_server.config import ServeConfig
from checkpointd_server.observability.endpoint import serve_metrics
from checkpointd_server.observability.families import Snapshot, counters_of, merge
from checkpointd_server.process.signals import StopSignals
from checkpointd_server.process.worker_process import WorkerConfig, WorkerFailed, WorkerProcess
from checkpointd_server.rpc.listener.port_reservation import held_ports

PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a worker that died is started again, in seconds. The last one repeats."""
STEADY_SECONDS = 60.0
"""How long a worker must have served for the pauses to start from the first again, in seconds."""
SNAPSHOT_SECONDS = 2.0
"""How long a worker may take to send its metrics, in seconds."""

_log = structlog.get_logger(__name__)


async def supervise(config: ServeConfig, *, announce: Callable[[Sequence[str]], None]) -> None:
    """Serves with several processes until a signal asks to stop.

    Args:
        config: The settings.
        announce: Called once with the addresses when all workers serve.

    Raises:
        SetupError: A setting can't be used as it is.
        DatabaseUnavailable: The database didn't come up in time, or the embedded one stopped.
        WorkerFailed: A worker can't start, or didn't stop properly.
    """
    _log.info("starting", version=__version__, workers=config.workers)
    with StopSignals() as signals:
        try:
            app.check(config, shared=False)
            with _addresses(config) as (listen, health_listen):
                async with app.open_database(config.database) as database:
                    if config.migrate:
                        await app.bring_up_to_date(config, database)
                    # Without what the parent itself does: ports, database, schema, metrics.
                    common = replace(
                        config,
                        workers=1,
                        listen=listen,
                        health_listen=health_listen,
                        database=replace(config.database, url=database.url, data_dir=None),
                        metrics_listen=None,
                        migrate=False,
                    )
                    shares = [pool_share(config.pool_max_size, config.workers, n + 1) for n in range(config.workers)]
                    orders = [
                        WorkerConfig(worker=number, config=replace(common, pool_max_size=share))
                        for number, share in enumerate(shares, 1)
                    ]
                    await _serve(config, orders, database, signals, lambda: announce(listen))
        except asyncio.CancelledError:
            if not signals.received:
                raise
        _log.info("stopped")


def pool_share(pool_max_size: int, workers: int, number: int) -> int:
    """Returns the maximum number of database connections of a worker. Workers are numbered from 1."""
    return pool_max_size // workers + (number <= pool_max_size % workers)


@contextmanager
def _addresses(config: ServeConfig) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Holds all ports. Yields the addresses to serve on, and those for health checks only."""
    with held_ports((*config.listen, *config.health_listen)) as held:
        yield held[: len(config.listen)], held[len(config.listen) :]


async def _serve(
    config: ServeConfig,
    orders: Sequence[WorkerConfig],
    database: app.Database,
    signals: StopSignals,
    announce: Callable[[], None],
) -> None:
    workers = Workers(orders)
    try:
        await workers.start()
        _log.info("serving", workers=len(orders))
        async with serve_metrics(config.metrics_listen, workers.take_snapshot):
            announce()
            await app.first_of(signals.await_request(), workers.keep(), app.fail_when_lost(database))
        await workers.stop(config.drain_seconds + config.kill_after_seconds)
    except BaseException:
        await workers.end(config.kill_after_seconds)
        raise


class Workers:
    """The worker processes."""

    def __init__(self, orders: Sequence[WorkerConfig]) -> None:
        self._orders = orders
        self._running: dict[int, WorkerProcess] = {}
        self._last: dict[int, Snapshot] = {}
        self._past: Snapshot = {"checkpointd_worker_restarts": [([], 0)]}
        """The counters of workers that have ended: a counter must never decrease."""

    async def take_snapshot(self) -> Snapshot:
        """Returns the metrics of all workers, merged; of one that doesn't answer in time, only the last counters."""

        async def take(number: int, worker: WorkerProcess) -> Snapshot:
            snapshot = await worker.take_snapshot(SNAPSHOT_SECONDS)
            if snapshot is None or self._running.get(number) is not worker:
                return counters_of(self._last.get(number, {}))
            self._last[number] = snapshot
            return snapshot

        snapshots = await asyncio.gather(*(take(number, worker) for number, worker in self._running.items()))
        return merge([self._past, *snapshots])

    async def start(self) -> None:
        """Starts all workers and waits until each serves. Raises WorkerFailed as soon as one fails."""
        for order in self._orders:
            self._running[order.worker] = await WorkerProcess.launch(order)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_failure(worker)) for worker in self._running.values()]
            for task in asyncio.as_completed(tasks):
                failure = await task
                if failure is not None:
                    for other in tasks:
                        other.cancel()
                    break
            else:
                failure = next(
                    (worker.failure() for worker in self._running.values() if worker.returncode is not None), None
                )
        if failure is not None:
            raise failure

    async def keep(self) -> None:
        """Starts replacing workers that die."""
        async with asyncio.TaskGroup() as group:
            for order in self._orders:
                group.create_task(self._keep(order))

    async def _keep(self, order: WorkerConfig) -> None:
        loop = asyncio.get_running_loop()
        deaths, since = 0, loop.time()
        while True:
            await self._running[order.worker].wait()
            failure: WorkerFailed | None = self._running[order.worker].failure()
            if loop.time() - since >= STEADY_SECONDS:
                deaths = 0
            while failure is not None:
                pause = PAUSES[min(deaths, len(PAUSES) - 1)]
                deaths += 1
                reason = str(failure)
                _log.error("a worker has ended and is replaced", worker=order.worker, reason=reason, pause=pause)
                await asyncio.sleep(pause)
                failure = await self._replace(order)
            since = loop.time()
            _log.info("a worker was replaced", worker=order.worker)

    async def _replace(self, order: WorkerConfig) -> WorkerFailed | None:
        restart: Snapshot = {"checkpointd_worker_restarts": [([], 1)]}
        self._past = merge([self._past, counters_of(self._last.pop(order.worker, {})), restart])
        try:
            self._running[order.worker] = await WorkerProcess.launch(order)
        except WorkerFailed as failure:
            return failure
        return await _failure(self._running[order.worker])

    async def stop(self, seconds: float) -> None:
        """Drains all workers. Raises WorkerFailed if one doesn't stop properly and in time."""
        stopping = [worker for worker in self._running.values() if worker.returncode is None]
        for worker in stopping:
            worker.signal(signal.SIGTERM)
        late = await self._wait(seconds)
        for worker in stopping:
            if worker in late:
                raise WorkerFailed(f"worker {worker.number} didn't stop in time and was killed")
            if worker.returncode not in (0, -signal.SIGTERM):
                raise worker.failure()

    async def end(self, seconds: float) -> None:
        """Ends all workers at once, even those that are draining. Kills those that take too long."""
        for worker in self._running.values():
            worker.release()
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> list[WorkerProcess]:
        """Waits until all have ended. Kills those that take too long, and returns them."""
        waits = [asyncio.ensure_future(worker.wait()) for worker in self._running.values()]
        try:
            if waits:
                await asyncio.wait(waits, timeout=seconds)
        finally:
            for wait in waits:
                wait.cancel()
        late = [worker for worker in self._running.values() if worker.returncode is None]
        for worker in late:
            _log.error("a worker doesn't stop and is killed", worker=worker.number)
            worker.signal(signal.SIGKILL)
            await worker.wait()
        return late


async def _failure(worker: WorkerProcess) -> WorkerFailed | None:
    """Waits until a worker serves. Returns the reason if it ends before."""
    try:
        await worker.until_ready()
    except WorkerFailed as failure:
        return failure
    return None
