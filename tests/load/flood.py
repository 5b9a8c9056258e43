"""A client that sends far more calls than the server can take, and never retries: `python -m tests.load.flood '{...}'`.

Prints "flooding" after the first answer. At the end of standard input, and once it has had enough, it prints the
outcomes of all calls, as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub

LONGEST_SECONDS = 60.0
"""How long a flood goes on if it doesn't have enough, in seconds."""
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(kw_only=True)
class Plan:
    """The options of a flood."""

    target: str
    name: str
    """The prefix of its threads' ids."""
    callers: int
    """The number of calls that it makes at a time."""
    value_bytes: int
    """The size of each put's value."""
    enough: dict[str, int] = field(default_factory=dict)
    """How many calls must have ended with each code and reason before it ends, besides a put that is stored."""
    channels: int = 4
    """The number of its connections."""
    token: str = ""
    """Its bearer token; none is sent if empty."""


@dataclass(kw_only=True)
class Tally:
    """The outcomes of a flood's calls."""

    codes: Counter[str] = field(default_factory=Counter)
    """The number of calls that ended with each code and reason."""
    stored: list[str] = field(default_factory=list)
    """The threads whose puts were acknowledged."""
    hints: list[float] = field(default_factory=list)
    """The retry delays of the refused calls, in seconds."""
    refusal_seconds: list[float] = field(default_factory=list)
    """The time that each refusal took."""

    def has(self, enough: dict[str, int]) -> bool:
        """Returns whether a put was stored, and enough calls have ended with each of these codes and reasons."""
        return bool(self.stored) and all(self.codes[code] >= count for code, count in enough.items())


def put_request(thread_id: str, value_bytes: int) -> pb.PutCheckpointRequest:
    """Returns a put of a value of this size."""
    value = values.TypedValue(type="bytes", data=bytes(value_bytes))
    return pb.PutCheckpointRequest(
        thread_id=thread_id,
        checkpoint_id="1",
        body=b"\x80",
        channels=["channel"],
        channel_versions=["i1"],
        values=[values.ChannelValue(channel="channel", version="i1", value=value)],
        metadata=values.Metadata(value=values.TypedValue(type="msgpack", data=b"\x80")),
    )


def refusal_of(error: grpc.aio.AioRpcError) -> tuple[str, float | None]:
    """Returns the reason of a failure, and its retry delay in seconds."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    assert isinstance(details, bytes)
    info, hint = ErrorInfo(), RetryInfo()
    reason, seconds = error.details() or "", None
    for detail in Status.FromString(details).details:
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(hint):
            seconds = hint.retry_delay.ToMilliseconds() / 1000
    return reason, seconds


async def flood(plan: Plan, is_over: Callable[[], bool]) -> Tally:
    """Makes calls until it may end: each caller one after another, without a pause."""
    tally = Tally()
    latest = time.monotonic() + LONGEST_SECONDS
    metadata = (("authorization", f"Bearer {plan.token}"),) if plan.token else ()
    channels = [
        grpc.aio.insecure_channel(plan.target, [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
        for _ in range(plan.channels)
    ]

    def count(outcome: str) -> None:
        if not tally.codes:
            print("flooding", flush=True)
        tally.codes[outcome] += 1

    async def call(rpc: Any, request: Any) -> bool:
        begun = time.monotonic()
        try:
            await rpc(request, timeout=60, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            reason, hint = refusal_of(error)
            count(f"{error.code().name} {reason}")
            tally.refusal_seconds.append(time.monotonic() - begun)
            if hint is not None:
                tally.hints.append(hint)
            return False
        count("OK")
        return True

    async def caller(number: int) -> None:
        stub: Any = CheckpointServiceStub(channels[number % len(channels)])
        for turn in itertools.count():
            if is_over() and (tally.has(plan.enough) or time.monotonic() > latest):
                return
            thread_id = f"{plan.name}-{number}-{turn}"
            if await call(stub.PutCheckpoint, put_request(thread_id, plan.value_bytes)):
                tally.stored.append(thread_id)
            await call(stub.GetCheckpoint, pb.GetCheckpointRequest(thread_id=thread_id))

    await asyncio.gather(*(caller(number) for number in range(plan.callers)))
    for channel in channels:
        await channel.close()
    return tally


def main(plan: Plan) -> None:
    """Floods until standard input ends."""
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    print(json.dumps(vars(asyncio.run(flood(plan, over.is_set)))))


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
