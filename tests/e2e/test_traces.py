"""Spans lead from a LangGraph agent to the statement that PostgreSQL ran for it, through one trace."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError, VersionConflictError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.observability.tracing import MAX_TRACEPARENT, OtelTracing
from tests.support.calls import checkpoint, config_of
from tests.support.comparison import Ledger
from tests.support.graphs import line
from tests.support.local_server import LocalServer
from tests.support.rpc_client import connected
from tests.support.server_process import ServerProcess
from tests.support.until import until

THREAD: RunnableConfig = {"configurable": {"thread_id": "traced"}}


class Spans:
    """The spans of both sides."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        """All spans that have ended."""
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of one name."""
        return [span for span in self.all if span.name == name]

    def way_up(self, span: ReadableSpan) -> list[str]:
        """The names from a span up to its trace's root."""
        by_id = {one.context.span_id: one for one in self.all if one.context}
        names = []
        current: ReadableSpan | None = span
        while current is not None:
            names.append(current.name)
            current = by_id.get(current.parent.span_id) if current.parent else None
        return names


@pytest.fixture
def spans() -> Spans:
    """Collects spans."""
    return Spans()


@pytest.fixture
def traced_server(database_url: str, spans: Spans) -> Iterator[LocalServer]:
    """A server in this process that is traced."""
    with LocalServer(database_url, tracing=OtelTracing(spans.provider)) as server:
        yield server


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_run_is_one_trace_from_the_agent_to_each_statement(
    way: str, traced_server: LocalServer, spans: Spans
) -> None:
    with GrpcSaver(traced_server.target, tracing=spans.provider) as saver:
        graph = line(Ledger()).compile(checkpointer=saver)
        with spans.provider.get_tracer("test").start_as_current_span("agent"):
            if way == "invoke":
                graph.invoke({"path": []}, THREAD)
            else:
                await graph.ainvoke({"path": []}, THREAD)
        puts = len(list(saver.list(THREAD)))
    until(lambda: len(spans.named("checkpointd.v1.CheckpointService/PutCheckpoint")) == puts)
    trace_ids = {span.context.trace_id for span in spans.all if span.context and "List" not in spans.way_up(span)[-1]}
    assert len(trace_ids) == 1
    for statement, method in (("commit_group", "PutCheckpoint"), ("get_checkpoint", "GetCheckpoint")):
        ways = [spans.way_up(span) for span in spans.named(statement)]
        service = "checkpointd.v1.CheckpointService"
        assert [statement, f"{service}/{method}", f"GrpcSaver/{method}", "agent"] in ways
        assert all(names[-1] == "agent" for names in ways)
    (commit, *_) = spans.named("commit_group")
    assert commit.attributes is not None
    assert commit.attributes["db.system.name"] == "postgresql"
    for span in spans.named("checkpointd.v1.CheckpointService/PutCheckpoint"):
        assert span.attributes is not None
        assert span.attributes["checkpointd.thread_id"] == "traced"


def test_calls_of_their_own_carry_their_context_too(traced_server: LocalServer, spans: Spans) -> None:
    tracer = spans.provider.get_tracer("test")
    with (
        GrpcSaver(traced_server.target, tracing=spans.provider) as saver,
        tracer.start_as_current_span("operator"),
    ):
        saver.delete_thread("traced")
    (deletion,) = until(lambda: spans.named("checkpointd.v1.ThreadService/DeleteThread"))
    assert spans.way_up(deletion) == [deletion.name, "GrpcSaver/DeleteThread", "operator"]
    (statement,) = spans.named("delete_thread")
    assert spans.way_up(statement) == ["delete_thread", *spans.way_up(deletion)]


def test_a_commit_that_traces_share_is_in_each_of_them(traced_server: LocalServer, spans: Spans) -> None:
    tracer = spans.provider.get_tracer("test")
    with GrpcSaver(traced_server.target, tracing=spans.provider) as saver, ThreadPoolExecutor(16) as pool:

        def put(number: int) -> None:
            with tracer.start_as_current_span(f"agent {number}"):
                saver.put(config_of(f"thread-{number}"), checkpoint("1", {"a": 1}), {}, {"a": 1})

        list(pool.map(put, range(64)))
    statements = until(
        lambda: [*spans.named("commit_writes"), *spans.named("commit_group")], lambda found: len(found) == 64
    )
    assert {spans.way_up(one)[-1] for one in statements} == {f"agent {number}" for number in range(64)}
    shared = [one for one in statements if one.attributes and int(str(one.attributes["checkpointd.calls"])) > 1]
    assert shared


def test_what_failed_says_so_on_both_sides_and_names_no_text(traced_server: LocalServer, spans: Spans) -> None:
    with (
        GrpcSaver(traced_server.target, tracing=spans.provider) as winner,
        GrpcSaver(traced_server.target, tracing=spans.provider) as loser,
    ):
        graph = line(Ledger())

        def intrude(state: object) -> dict[str, list[str]]:
            line(Ledger()).compile(checkpointer=winner).invoke({"path": []}, THREAD)
            return {"path": ["late"]}

        graph.add_node("intrude", intrude)
        graph.add_edge("d", "intrude")
        with pytest.raises(VersionConflictError):
            graph.compile(checkpointer=loser).invoke({"path": []}, THREAD)
    failed = [span for span in spans.all if span.status.status_code is StatusCode.ERROR]
    assert {"VERSION_CONFLICT", "VersionConflictError"} <= {span.status.description for span in failed}


@pytest.mark.parametrize("traceparent", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 2**16])
async def test_a_traceparent_that_is_none_begins_a_trace(
    traceparent: str, traced_server: LocalServer, spans: Spans
) -> None:
    async with connected(traced_server.target) as client:
        stream = client.checkpoints.Pipeline()
        operation = pb.Operation(id=1, put_checkpoint=client.put_request(), traceparent=traceparent)
        await stream.write(pb.PipelineRequest(operations=[operation]))
        response = await stream.read()
        assert response.results[0].put_checkpoint.version
        stream.cancel()
    (span,) = until(lambda: spans.named("checkpointd.v1.CheckpointService/PutCheckpoint"))
    assert span.parent is None
    assert len(traceparent) < MAX_TRACEPARENT or traceparent[0] == "x"


def test_a_saver_that_is_not_asked_makes_no_span(traced_server: LocalServer, spans: Spans) -> None:
    with GrpcSaver(traced_server.target) as saver:
        saver.put(config_of("quiet"), checkpoint("1"), {}, {})
    assert not [span for span in spans.all if span.name.startswith("GrpcSaver")]


def test_what_is_no_provider_is_refused() -> None:
    wrong: Any = "yes"
    with pytest.raises(InvalidArgumentError, match="tracing: must be True, False or a TracerProvider, not str"):
        GrpcSaver("127.0.0.1:1", tracing=wrong)


def test_the_server_sends_its_spans_to_a_collector(database_url: str, tmp_path: Path) -> None:
    received: list[ExportTraceServiceRequest] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") != "gzip":
                received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "checkpoints"}
        with (
            ServerProcess("--database-url", database_url, "--traces", log_dir=tmp_path, env=env) as server,
            GrpcSaver(server.target) as saver,
        ):
            saver.put(config_of("sent"), checkpoint("1"), {}, {})
        # Stopping it sends what was left.
        collector.shutdown()
    resources = [one for request in received for one in request.resource_spans]
    assert {
        attribute.value.string_value
        for one in resources
        for attribute in one.resource.attributes
        if attribute.key == "service.name"
    } == {"checkpoints"}
    names = {span.name for one in resources for scope in one.scope_spans for span in scope.spans}
    assert {"checkpointd.v1.CheckpointService/PutCheckpoint", "commit_group"} <= names
