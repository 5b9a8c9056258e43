"""Looks for tests that fail now and then: runs them many times, each time in another order and with pauses.

    python -m scripts.flaky --times 10 -- tests/rpc

While the tests run, a process of the run is stopped every now and then (SIGSTOP) and continues a moment later: pytest's
own, a server, an agent, PostgreSQL or one of its sessions. A busy machine does the same, only less often. Only
processes that this run has started are affected, and none while a test stops processes itself
(tests/support/pauses.py).

A run's order comes from its seed, and the seeds from the first: `--seed` repeats them. The pauses aren't repeated, but
a test with a wrong assumption about time fails again sooner or later. Each run's output is kept (`--logs`). Exit
code 1: a test has failed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
LONGEST_PAUSE = 0.8
"""How long a process is stopped at most, in seconds."""
LONGEST_REST = 0.5
"""How long no process is stopped after that at most, in seconds."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tests as often as asked and returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=10, help="how many runs (default: 10)")
    parser.add_argument("--seed", type=int, help="the first run's seed; the next has the next number (default: any)")
    parser.add_argument("--no-pauses", action="store_true", help="stop nothing")
    parser.add_argument(
        "--logs", type=Path, default=ROOT / ".build" / "flaky", help="where outputs go (default: .build/flaky)"
    )
    parser.add_argument("pytest", nargs="*", help="pytest's own arguments, after --")
    options = parser.parse_args(arguments)
    first = options.seed if options.seed is not None else random.randrange(1_000_000)
    logs: Path = options.logs
    logs.mkdir(parents=True, exist_ok=True)
    failures: Counter[str] = Counter()
    unfinished = 0
    for seed in range(first, first + options.times):
        log = logs / f"{seed}.log"
        started = time.monotonic()
        code, pauses = run(seed, log, options.pytest, pausing=not options.no_pauses)
        failed = FAILED.findall(log.read_text(errors="replace"))
        failures.update(failed)
        unfinished += code not in (0, 1)
        told = ", ".join(failed) or ("all passed" if code == 0 else f"exit code {code}, see its output")
        print(f"seed {seed}: {pauses} pauses, {time.monotonic() - started:.0f} s: {told}", flush=True)
    for name, count in failures.most_common():
        print(f"{count} of {options.times}: {name}")
    print(f"outputs are in {logs}; to repeat an order: --seed and --times 1")
    return 1 if failures or unfinished else 0


def run(seed: int, log: Path, arguments: Sequence[str], *, pausing: bool) -> tuple[int, int]:
    """Runs the tests once. Returns pytest's exit code, and the number of pauses."""
    lock = log.with_name("pauses.lock")
    lock.touch()
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", "-m", "not long"]
    order = ["--random-order", f"--random-order-seed={seed}"]
    env = {**os.environ, "CHECKPOINTD_TEST_PAUSES": str(lock)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *order, *arguments], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            pauses = pause_now_and_then(process, random.Random(seed), lock) if pausing else 0
            return process.wait(), pauses
        except BaseException:
            process.terminate()
            process.wait()
            raise


def pause_now_and_then(run: subprocess.Popen[bytes], chance: random.Random, lock: Path) -> int:
    """Stops processes of a run, one at a time, until it has ended. Returns the number of pauses."""
    pauses = 0
    root = psutil.Process(run.pid)
    with lock.open() as handle:
        while run.poll() is None:
            time.sleep(chance.uniform(0, LONGEST_REST))
            with suppress(BlockingIOError):  # a test is stopping processes itself
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    pauses += pause(root, chance)
                finally:
                    fcntl.flock(handle, fcntl.LOCK_UN)
    return pauses


def pause(root: psutil.Process, chance: random.Random) -> bool:
    """Stops a process of the tree for a moment, and returns whether it did."""
    with suppress(psutil.NoSuchProcess):
        # First a program, then one of its processes: PostgreSQL alone has more than all others together.
        programs: dict[str, list[psutil.Process]] = {}
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                programs.setdefault(process.name(), []).append(process)
        victim = chance.choice(programs[chance.choice(sorted(programs))])
        if victim.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            return False
        victim.suspend()
        try:
            time.sleep(chance.uniform(0, LONGEST_PAUSE))
        finally:
            victim.resume()
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
