/** Reads: the call, what its answer left out, and LangGraph's types made of both. */
import {
  JsonPlusSerializer,
  TASKS,
  maxChannelVersion,
  type Checkpoint,
  type CheckpointMetadata,
  type CheckpointPendingWrite,
  type CheckpointTuple,
  type DeltaChannelHistory,
  type SerializerProtocol,
} from "@langchain/langgraph-checkpoint";

import { configOf, readBody, versionOf, type Key } from "./convert.js";
import { CheckpointdError, CorruptValueError, PYTHON_TYPES, SerializerMismatchError } from "./errors.js";
import { CheckpointServiceService, GetCheckpointRequest, GetDeltaChannelHistoryRequest, type ListCheckpointsRequest } from "./gen/checkpointd/v1/checkpoint_service.js";
import type { CheckpointTuple as StoredTuple, TaskWrite, TypedValue } from "./gen/checkpointd/v1/values.js";
import type { Transport } from "./transport.js";
import { ValueGoneError, fetchAll, type Place, type Whole } from "./values.js";

/** How often a read is begun anew because values went away meanwhile. */
const TRIES = 10;
/** How many pages without anything on them may follow one another. */
const MAX_EMPTY_PAGES = 100;
/** The checkpoint format since which a checkpoint holds its own pending sends. */
const SENDS_STORED_INLINE = 4;

type OnRead = (version: bigint, checkpointIds: string[]) => void;

/** Reads with one serializer. */
export class Reader {
  constructor(
    private readonly transport: Transport,
    private readonly serde: SerializerProtocol,
    private readonly firstVersion: () => string,
  ) {}

  /** Reads one checkpoint; "" for the latest. */
  async get(key: Key, checkpointId: string, onRead?: OnRead): Promise<CheckpointTuple | undefined> {
    for (let tries = 0; tries < TRIES; tries++) {
      const answer = await this.transport.call(CheckpointServiceService.getCheckpoint, GetCheckpointRequest.fromPartial({ ...key, checkpointId }));
      onRead?.(answer.version, answer.tuple === undefined ? [] : [answer.tuple.checkpointId]);
      if (answer.tuple === undefined) return undefined;
      try {
        return await this.tupleOf(answer.tuple);
      } catch (error) {
        if (!(error instanceof ValueGoneError)) throw error;
      }
    }
    throw restless(key.threadId);
  }

  /** Yields the checkpoints of a list, newest first. */
  async *pages(request: ListCheckpointsRequest, onRead?: OnRead): AsyncGenerator<CheckpointTuple> {
    let empty = 0;
    for (;;) {
      const page = await this.transport.call(CheckpointServiceService.listCheckpoints, request);
      onRead?.(page.version, page.tuples.map((each) => each.checkpointId));
      for (const stored of page.tuples) {
        let found: CheckpointTuple | undefined;
        try {
          found = await this.tupleOf(stored);
        } catch (error) {
          if (!(error instanceof ValueGoneError)) throw error;
          // Replaced since, or deleted.
          found = await this.get({ threadId: stored.threadId, checkpointNs: stored.checkpointNs }, stored.checkpointId);
        }
        if (found !== undefined) yield found;
      }
      if (page.nextPageToken === "") return;
      empty = page.tuples.length > 0 ? 0 : empty + 1;
      checkProgress(request.pageToken, page.nextPageToken, empty);
      request = { ...request, pageToken: page.nextPageToken };
    }
  }

  /** Reads the histories of channels, all pages of them. */
  async deltaHistory(key: Key, checkpointId: string, channels: string[]): Promise<Record<string, DeltaChannelHistory>> {
    for (let tries = 0; tries < TRIES; tries++) {
      try {
        return await this.histories(key, checkpointId, channels);
      } catch (error) {
        if (!(error instanceof ValueGoneError)) throw error;
      }
    }
    throw restless(key.threadId);
  }

  private async histories(key: Key, checkpointId: string, channels: string[]): Promise<Record<string, DeltaChannelHistory>> {
    // Newest checkpoint first, as the pages come: by checkpoint, each with its writes in order.
    const writes = new Map(channels.map((channel) => [channel, new Map<string, CheckpointPendingWrite[]>()]));
    const seeds = new Map<string, unknown>();
    let pageToken = "";
    let empty = 0;
    for (;;) {
      const request = GetDeltaChannelHistoryRequest.fromPartial({ ...key, checkpointId, channels, pageToken });
      const page = await this.transport.call(CheckpointServiceService.getDeltaChannelHistory, request);
      let onPage = 0;
      for (const found of page.channels) {
        const own = writes.get(found.channel);
        if (own === undefined) throw new CorruptValueError("the server answered about a channel that wasn't asked for");
        const whole = await this.writesOf(key, found.writes, (write) => write.checkpointId);
        found.writes.forEach((write, at) => own.set(write.checkpointId, [...(own.get(write.checkpointId) ?? []), whole[at]!]));
        onPage += found.writes.length;
        if (found.seedVersion !== "" && found.seed !== undefined) {
          const place = channelPlace(found.channel, found.seedVersion);
          const [seed] = await fetchAll(this.transport, key, [{ value: found.seed, place }]);
          seeds.set(found.channel, await this.load(key.threadId, seed!));
          onPage++;
        }
      }
      if (page.nextPageToken === "") break;
      empty = onPage > 0 ? 0 : empty + 1;
      checkProgress(pageToken, page.nextPageToken, empty);
      pageToken = page.nextPageToken;
    }
    return Object.fromEntries(
      channels.map((channel) => {
        const history: DeltaChannelHistory = { writes: [...writes.get(channel)!.values()].reverse().flat() };
        if (seeds.has(channel)) history.seed = seeds.get(channel);
        return [channel, history];
      }),
    );
  }

  private async tupleOf(stored: StoredTuple): Promise<CheckpointTuple> {
    const key = { threadId: stored.threadId, checkpointNs: stored.checkpointNs };
    if (stored.channels.length !== stored.channelVersions.length || stored.metadata?.value === undefined) {
      throw new CorruptValueError(`checkpoint ${JSON.stringify(stored.checkpointId)}: the server answered with a part of it`);
    }
    // First, for its type tells whose thread it is.
    const metadata = await this.load(key.threadId, stored.metadata.value);
    const values = stored.values.flatMap((each) => (each.value === undefined ? [] : [{ ...each, value: each.value }]));
    const whole = await fetchAll(
      this.transport,
      key,
      values.map(({ channel, version, value }) => ({ value, place: channelPlace(channel, version) })),
    );
    const loaded = await Promise.all(whole.map((each) => this.load(key.threadId, each)));
    const { fields, extra } = readBody(stored.body);
    const checkpoint = {
      ...fields,
      ...(extra === undefined ? {} : ((await this.load(key.threadId, { type: extra[0], data: Buffer.from(extra[1]) })) as object)),
      id: stored.checkpointId,
      channel_values: Object.fromEntries(values.map(({ channel }, at) => [channel, loaded[at]])),
      channel_versions: Object.fromEntries(stored.channels.map((channel, at) => [channel, versionOf(stored.channelVersions[at]!)])),
    } as Checkpoint;
    checkpoint.versions_seen ??= {};
    const found: CheckpointTuple = {
      config: configOf(key, stored.checkpointId),
      checkpoint,
      metadata: metadata as CheckpointMetadata,
      pendingWrites: await this.writesOf(key, stored.pendingWrites, () => stored.checkpointId),
    };
    if (stored.parentCheckpointId !== "") found.parentConfig = configOf(key, stored.parentCheckpointId);
    if (checkpoint.v < SENDS_STORED_INLINE && found.parentConfig !== undefined) {
      await this.addParentSends(key, found, stored.parentCheckpointId);
    }
    return found;
  }

  /** Gives a checkpoint of an old format the sends that its parent's tasks wrote, as a value of the TASKS channel. */
  private async addParentSends(key: Key, found: CheckpointTuple, parentId: string): Promise<void> {
    const parent = await this.get(key, parentId);
    const sends = (parent?.pendingWrites ?? []).filter(([, channel]) => channel === TASKS).map(([, , value]) => value);
    const versions = Object.values(found.checkpoint.channel_versions);
    found.checkpoint.channel_values[TASKS] = sends;
    found.checkpoint.channel_versions[TASKS] = versions.length > 0 ? maxChannelVersion(...versions) : this.firstVersion();
  }

  private async writesOf(key: Key, writes: TaskWrite[], besideOf: (write: TaskWrite) => string): Promise<CheckpointPendingWrite[]> {
    const stored = writes.map((write) => {
      if (write.value === undefined) throw new CorruptValueError("the server answered with a write that has no value");
      return { value: write.value, place: writePlace(besideOf(write), write) };
    });
    const whole = await fetchAll(this.transport, key, stored);
    const loaded = await Promise.all(whole.map((each) => this.load(key.threadId, each)));
    return writes.map((write, at): CheckpointPendingWrite => [write.taskId, write.channel, loaded[at]]);
  }

  private async load(threadId: string, value: Whole | TypedValue): Promise<unknown> {
    try {
      return await this.serde.loadsTyped(value.type, value.data);
    } catch (error) {
      if (error instanceof CheckpointdError) throw error;
      if (isOthers(value.type, this.serde)) throw new SerializerMismatchError(threadId, value.type);
      throw new CorruptValueError(
        `a value of thread ${JSON.stringify(threadId)}, of type ${JSON.stringify(value.type)}, can't be read by this saver's serializer ` +
          `(${(error as Error)?.name}): it was stored by another one, or changed since`,
      );
    }
  }
}

/** Whether a value that a serializer couldn't read has a type that it doesn't read, as far as that is known. */
function isOthers(type: string, serde: SerializerProtocol): boolean {
  return PYTHON_TYPES.test(type) || (serde instanceof JsonPlusSerializer && type !== "json" && type !== "bytes");
}

function channelPlace(channel: string, version: string): Place {
  return { $case: "channelValue", value: { channel, version } };
}

function writePlace(checkpointId: string, write: TaskWrite): Place {
  return { $case: "taskWrite", value: { checkpointId, taskId: write.taskId, idx: write.idx } };
}

function checkProgress(token: string, next: string, empty: number): void {
  if (token === next || empty > MAX_EMPTY_PAGES) {
    throw new CorruptValueError("the server's list doesn't end: it goes on with empty pages");
  }
}

function restless(threadId: string): CheckpointdError {
  return new CheckpointdError(`thread ${JSON.stringify(threadId)} changed again and again while a large value was read; try again`);
}
