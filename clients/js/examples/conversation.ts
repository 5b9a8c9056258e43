/**
 * Reads and continues a thread that a Python graph wrote, with the protocol alone: no LangGraph here.
 *
 *     node conversation.js HOST:PORT THREAD NODE [CA.pem]
 *     ANSWER=yes node conversation.js HOST:PORT THREAD NODE [CA.pem]
 *
 * NODE is the node that is to take what is appended. With an authority's certificate it speaks TLS; the token is that of
 * CHECKPOINTD_TOKEN. With ANSWER it answers what the thread waits for, and does nothing else. Running the graph needs LangGraph:
 * afterwards, `graph.invoke(None, config)` in Python goes on from here.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";

import { Metadata, credentials, status, type ServiceError } from "@grpc/grpc-js";
import { encode } from "@msgpack/msgpack";

import {
  CheckpointServiceClient,
  CheckpointView,
  ErrorInfo,
  GetCheckpointRequest,
  ListCheckpointsRequest,
  PutCheckpointRequest,
  PutWritesRequest,
  Status,
  ThreadServiceClient,
  CopyThreadRequest,
  type CheckpointTuple,
  type GetCheckpointResponse,
} from "@checkpointd/langgraph-checkpoint/protocol";

import { appended, bodyOf, message, msgpack, nextVersion, plain, uuid6 } from "./langgraph-data.js";

const [target, threadId, node, ca] = process.argv.slice(2) as [string, string, string, string?];

// Connecting: TLS and a token where an authority is given. Pings every 20 s: the server takes them every 10 s and more seldom.
const channel = ca === undefined ? credentials.createInsecure() : credentials.createSsl(readFileSync(ca));
const options = { "grpc.keepalive_time_ms": 20_000, "grpc.max_receive_message_length": 64 << 20 };
const checkpoints = new CheckpointServiceClient(target, channel, options);
const threads = new ThreadServiceClient(target, channel, options);

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, response: Response) => void,
) => unknown;

/** Calls an RPC, with a deadline and the token. */
function call<Request, Response>(client: object, rpc: Unary<Request, Response>, request: Request): Promise<Response> {
  const metadata = new Metadata();
  if (process.env.CHECKPOINTD_TOKEN) metadata.set("authorization", `Bearer ${process.env.CHECKPOINTD_TOKEN}`);
  return promisify(rpc.bind(client) as Unary<Request, Response>)(request, metadata, { deadline: Date.now() + 10_000 }) as Promise<Response>;
}

/** The latest state. An empty answer is a certain absence; a failure to ask is an error. */
const latest = (thread = threadId) =>
  call(checkpoints, checkpoints.getCheckpoint as Unary<GetCheckpointRequest, GetCheckpointResponse>, GetCheckpointRequest.fromPartial({ threadId: thread }));

/** The messages of a state, as plain data. */
function messagesOf(tuple: CheckpointTuple): string[] {
  const stored = tuple.values.find((value) => value.channel === "messages")!.value!;
  return (plain(stored) as { type: string; content: string }[]).map(({ type, content }) => `${type}: ${content}`);
}

/** A thread's history, newest first, a page at a time. */
async function* history(thread: string): AsyncGenerator<CheckpointTuple> {
  const request = ListCheckpointsRequest.fromPartial({ threadId: thread, view: CheckpointView.METADATA, pageSize: 2, metadataStruct: true });
  do {
    const page = await call(checkpoints, checkpoints.listCheckpoints as Unary<ListCheckpointsRequest, any>, request);
    yield* page.tuples;
    request.pageToken = page.nextPageToken;
  } while (request.pageToken !== "");
}

/** Appends a message and has a node run next. Nothing is stored if the thread has moved on since it was read. */
async function append(read: GetCheckpointResponse, text: string): Promise<bigint> {
  const { checkpointId, body, channels, channelVersions, values, metadata } = read.tuple!;
  const messages = values.find((value) => value.channel === "messages")!.value!;
  const version = nextVersion(channelVersions);
  const trigger = `branch:to:${node}`;
  const versions = new Map(channels.map((name, at) => [name, channelVersions[at]!]));
  versions.set("messages", version).set(trigger, version);
  const { step } = plain(metadata!.value!) as { step: number };
  const { versions_seen } = bodyOf(body);
  const put = PutCheckpointRequest.fromPartial({
    threadId,
    checkpointId: uuid6(),
    parentCheckpointId: checkpointId,
    body: Buffer.from(encode({ v: 4, ts: new Date().toISOString(), versions_seen, updated_channels: ["messages", trigger] })),
    channels: [...versions.keys()],
    channelVersions: [...versions.values()],
    // A node runs when its trigger has a version that it hasn't seen.
    values: [
      { channel: "messages", version, value: appended(messages, message(text)) },
      { channel: trigger, version, value: msgpack(null) },
    ],
    metadata: { value: msgpack({ source: "update", step: step + 1, parents: {} }) },
    precondition: { ifVersionMatch: read.version },
    requestId: randomBytes(16), // kept, if this is sent again after a lost answer
  });
  return (await call(checkpoints, checkpoints.putCheckpoint as Unary<PutCheckpointRequest, { version: bigint }>, put)).version;
}

/** Answers what a thread waits for: the answer lies beside the checkpoint that waits, until the graph goes on. */
async function answer(read: GetCheckpointResponse, value: unknown): Promise<void> {
  const put = PutWritesRequest.fromPartial({
    threadId,
    checkpointId: read.tuple!.checkpointId,
    taskId: "00000000-0000-0000-0000-000000000000", // no task's: LangGraph gives it to the one that waits
    writes: [{ idx: -4, channel: "__resume__", value: msgpack(value) }],
    precondition: { ifVersionMatch: read.version },
    requestId: randomBytes(16),
  });
  await call(checkpoints, checkpoints.putWrites as Unary<PutWritesRequest, unknown>, put);
}

/** What the status of a failed call says beside its code. */
function errorInfo(error: ServiceError): ErrorInfo | undefined {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  const detail = packed === undefined ? undefined : Status.decode(packed as Buffer).details.find((each) => each.typeUrl.endsWith("ErrorInfo"));
  return detail && ErrorInfo.decode(detail.value);
}

/** Pages through the history, forks the thread, and appends to it, twice at once. */
async function continueThread(read: GetCheckpointResponse): Promise<void> {
  const steps: unknown[] = [];
  for await (const found of history(threadId)) steps.push(found.metadata!.struct!.step);
  console.log("history", JSON.stringify(steps));

  // A fork: a thread of its own that ends at an earlier checkpoint; its parents lead back from there.
  const fork = `${threadId}-fork`;
  const { tuple: parent } = await call(checkpoints, checkpoints.getCheckpoint as Unary<GetCheckpointRequest, GetCheckpointResponse>, GetCheckpointRequest.fromPartial({ threadId, checkpointId: read.tuple!.parentCheckpointId }));
  await call(threads, threads.copyThread as Unary<CopyThreadRequest, unknown>, CopyThreadRequest.fromPartial({ sourceThreadId: threadId, targetThreadId: fork, checkpointId: parent!.checkpointId, requestId: randomBytes(16) }));
  console.log("fork", (await latest(fork)).tuple!.checkpointId === parent!.checkpointId);

  // Two messages from what was read once: the second finds that the thread has moved on.
  const version = await append(read, "first from TypeScript");
  try {
    await append(read, "lost");
  } catch (error) {
    const info = errorInfo(error as ServiceError);
    if ((error as ServiceError).code !== status.ABORTED || info?.reason !== "VERSION_CONFLICT") throw error;
    console.log("conflict", BigInt(info.metadata.expected_version!) === read.version, BigInt(info.metadata.current_version!) === version);
    // Read again, and decide anew.
    await append(await latest(), "second from TypeScript");
  }
  console.log("messages", JSON.stringify(messagesOf((await latest()).tuple!)));
}

const read = await latest();
console.log("messages", JSON.stringify(messagesOf(read.tuple!)));
for (const { channel: name, value } of read.tuple!.pendingWrites.filter((write) => write.channel === "__interrupt__")) {
  console.log("waits", JSON.stringify((plain(value!) as { value: unknown }[]).map((each) => each.value)), name);
}

if (process.env.ANSWER === undefined) await continueThread(read);
else await answer(read, process.env.ANSWER);

checkpoints.close();
threads.close();
