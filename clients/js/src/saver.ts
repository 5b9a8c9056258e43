/** GrpcSaver: LangGraph.js's checkpointer interface over a checkpointd server. */
import { randomBytes } from "node:crypto";

import type { RunnableConfig } from "@langchain/core/runnables";
import {
  BaseCheckpointSaver,
  JsonPlusSerializer,
  WRITES_IDX_MAP,
  getCheckpointId,
  type ChannelVersions,
  type Checkpoint,
  type CheckpointListOptions,
  type CheckpointMetadata,
  type CheckpointTuple,
  type DeltaChannelHistory,
  type PendingWrite,
} from "@langchain/langgraph-checkpoint";

import {
  bodyOf,
  checkedVersion,
  configOf,
  extraFields,
  filterOf,
  MAX_INDEX_BYTES,
  indexOf,
  keyOf,
  requestId,
  text,
  threadOf,
  versionTag,
  type Key,
} from "./convert.js";
import { BaseMissingError, CheckpointdError, InvalidArgumentError } from "./errors.js";
import {
  CheckpointServiceService,
  CheckpointView,
  ListCheckpointsRequest,
  PutCheckpointRequest,
  PutWritesRequest,
} from "./gen/checkpointd/v1/checkpoint_service.js";
import { GetServerInfoRequest, InfoServiceService } from "./gen/checkpointd/v1/info_service.js";
import { CopyThreadRequest, DeleteThreadRequest, PruneStrategy, PruneThreadsRequest, ThreadServiceService } from "./gen/checkpointd/v1/thread_service.js";
import { SerializerFamily, TaskWrite, type TypedValue } from "./gen/checkpointd/v1/values.js";
import { settingsOf, type GrpcSaverOptions } from "./options.js";
import { Queues } from "./order.js";
import { Reader } from "./reader.js";
import { Runs } from "./runs.js";
import { Transport } from "./transport.js";
import { sendAhead, typedValue } from "./values.js";

/** The most checkpoints that are asked for at once. */
const MAX_PAGE = 1000;
/** How often a put is begun anew whose uploads went away. */
const TRIES = 3;
/** The special writes, whose positions are fixed. */
const FIXED_IDX = new Map(Object.entries(WRITES_IDX_MAP));

const utf8 = new TextDecoder();

/**
 * A LangGraph.js checkpointer that keeps its threads on a checkpointd server.
 *
 * ```ts
 * const saver = new GrpcSaver({ target: "127.0.0.1:50051" });
 * const graph = builder.compile({ checkpointer: saver });
 * await graph.invoke({ messages: [...] }, { configurable: { thread_id: "1" } });
 * ```
 *
 * It connects when it is first used. One saver serves any number of threads and graphs at once.
 */
// Versions are texts, as in Python. LangGraph's types expect savers whose versions are numbers: hence `any`.
export class GrpcSaver extends BaseCheckpointSaver<any> {
  private readonly transport: Transport;
  private readonly runs: Runs;
  private readonly queues = new Queues();

  /** @throws InvalidArgumentError An option can't be used. */
  constructor(options: GrpcSaverOptions = {}) {
    super(options.serde);
    const settings = settingsOf(options);
    this.transport = new Transport(settings);
    this.runs = new Runs(settings.optimistic);
  }

  /** Builds a saver for a server, "host:port". The options are those of the class. */
  static fromConnString(target: string, options: Omit<GrpcSaverOptions, "target"> = {}): GrpcSaver {
    return new GrpcSaver({ ...options, target });
  }

  /** Checks that the server answers, within the retry budget. There is nothing to set up: the server creates its tables. */
  async setup(): Promise<void> {
    await this.transport.call(InfoServiceService.getServerInfo, GetServerInfoRequest.fromPartial({}));
  }

  /** Closes the connections. */
  close(): void {
    this.transport.close();
  }

  /** Closes the connections at the end of a block with `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /**
   * Returns a channel's next version: text that sorts after the current one, as Python's savers make it. The digits after
   * the point are random, so that two branches of a thread never make the same version for different values.
   */
  override getNextVersion(current: string | number | undefined): any {
    const number = typeof current === "string" ? parseInt(current, 10) : (current ?? 0);
    const random = BigInt(`0x${randomBytes(7).toString("hex")}`);
    return `${String(Math.floor(number) + 1).padStart(32, "0")}.${String(random).padStart(17, "0")}`;
  }

  // Reading.

  /**
   * Reads one checkpoint: the latest, or the one that the config names.
   *
   * @returns The checkpoint, or undefined if there is none for certain. A failure to ask throws CheckpointdError.
   */
  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    if (config.configurable?.thread_id === undefined) return undefined;
    const key = keyOf(config);
    const onRead = this.runs.beginRead(config, key);
    await this.queues.settle(key.threadId);
    return this.reader().get(key, text("checkpoint_id", getCheckpointId(config)), onRead);
  }

  /**
   * Reads checkpoints newest first, a page at a time.
   *
   * @param config - Names the thread, or none for all threads; the namespace, or none for all of them.
   * @param options - `filter`: only checkpoints whose metadata contains this; `before`: only those whose id is less than
   *   this config's; `limit`: the most to return.
   */
  override async *list(config: RunnableConfig, options: CheckpointListOptions = {}): AsyncGenerator<CheckpointTuple> {
    const { limit, before, filter } = options;
    if (limit !== undefined && !Number.isInteger(limit)) throw new InvalidArgumentError("limit: must be a whole number", "limit");
    let left = limit ?? Infinity;
    if (left <= 0) return;
    const configurable = config?.configurable ?? {};
    const named = configurable.thread_id !== undefined && configurable.thread_id !== null;
    const checkpointNs = configurable.checkpoint_ns;
    const request = ListCheckpointsRequest.fromPartial({
      threadId: named ? threadOf(configurable.thread_id) : undefined,
      checkpointNs: text("checkpoint_ns", checkpointNs ?? ""),
      allNamespaces: checkpointNs === undefined || checkpointNs === null,
      checkpointId: getCheckpointId(config ?? {}) || undefined,
      beforeCheckpointId: before === undefined ? undefined : getCheckpointId(before) || undefined,
      filter: filter === undefined || Object.keys(filter).length === 0 ? Buffer.alloc(0) : Buffer.from(filterOf(await this.plain(filter))),
      view: CheckpointView.FULL,
      pageSize: Math.min(left, MAX_PAGE) === MAX_PAGE ? 0 : left,
    });
    const isOneNamespace = request.threadId !== undefined && !request.allNamespaces;
    const onRead = isOneNamespace ? this.runs.beginRead(config, { threadId: request.threadId!, checkpointNs: request.checkpointNs }) : undefined;
    await this.queues.settle(request.threadId);
    for await (const found of this.reader().pages(request, onRead)) {
      yield found;
      if (--left <= 0) return;
    }
  }

  /** Reads each channel's writes since its nearest stored value, and that value. */
  override async getDeltaChannelHistory(options: {
    config: RunnableConfig;
    channels: string[];
  }): Promise<Record<string, DeltaChannelHistory>> {
    const channels = [...new Set(options.channels.map((channel) => text("channels", channel)))];
    if (channels.length === 0) return {};
    const key = keyOf(options.config);
    await this.queues.settle(key.threadId);
    return this.reader().deltaHistory(key, text("checkpoint_id", getCheckpointId(options.config)), channels);
  }

  // Writing.

  /**
   * Stores a checkpoint with the values of the channels that changed.
   *
   * @param config - The config of the checkpoint this one was made from, or of its thread.
   * @param newVersions - The channels that changed, with their versions.
   * @returns The checkpoint's config.
   * @throws WriteConflictError Another run wrote to the thread after this one had read it, or has the lease on it.
   */
  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig> {
    const key = keyOf(config);
    if (!checkpoint.id) throw new InvalidArgumentError('checkpoint_id: the checkpoint has no "id"', "checkpoint_id");
    const parentId = getCheckpointId(config);
    const view = this.runs.viewOf(config, key, parentId);
    // Serialized before anything is awaited: the state may change while a save is under way.
    const outgoing = this.outgoingPut(key, checkpoint, parentId, metadata, newVersions);
    outgoing.catch(() => {});
    const put = this.queues.write(`put\0${key.threadId}\0${key.checkpointNs}`, key.threadId, async () => {
      try {
        view?.check(parentId);
        const { request, values } = await outgoing;
        const version = await this.storing(key, values, (whole) => {
          const precondition = view?.putPrecondition();
          return this.transport.call(CheckpointServiceService.putCheckpoint, {
            ...request,
            values: request.values.map((each) => (each.value === undefined ? each : { ...each, value: whole.shift() })),
            precondition,
            writer: precondition === undefined ? Buffer.alloc(0) : view!.token,
          });
        });
        view?.stored(checkpoint.id, checkedVersion(version.version));
      } catch (error) {
        const told = this.runs.refused(view, error);
        view?.fail(checkpoint.id, told instanceof CheckpointdError ? told : new CheckpointdError(`the put of this checkpoint failed: ${told}`));
        throw told;
      }
    });
    put.catch(() => {});
    view?.begin(checkpoint.id, put);
    await put;
    return configOf(key, checkpoint.id);
  }

  /**
   * Stores a task's writes beside the checkpoint that the config names.
   *
   * @throws WriteConflictError Another run wrote to the thread after this one had read it, or has the lease on it.
   */
  override async putWrites(config: RunnableConfig, writes: PendingWrite[], taskId: string, taskPath = ""): Promise<void> {
    const key = keyOf(config);
    const checkpointId = text("checkpoint_id", getCheckpointId(config));
    if (checkpointId === "") {
      throw new InvalidArgumentError("checkpoint_id: missing in the config; writes belong to a checkpoint", "checkpoint_id");
    }
    const view = this.runs.viewOf(config, key, checkpointId);
    view?.check(checkpointId);
    const serialized = Promise.all(writes.map(([, value]) => this.dump(value, false)));
    serialized.catch(() => {});
    // One task's writes one behind the other, for special ones replace what is there.
    await this.queues.write(`task\0${key.threadId}\0${key.checkpointNs}\0${taskId}`, key.threadId, async () => {
      try {
        const values = await serialized;
        await view?.waitForPut(checkpointId);
        const request = PutWritesRequest.fromPartial({
          ...key,
          checkpointId,
          taskId: text("task_id", taskId),
          taskPath: text("task_path", taskPath),
          // What a put tells by its metadata's type.
          serializerFamily: this.serde instanceof JsonPlusSerializer ? SerializerFamily.LANGGRAPH_JSON : SerializerFamily.OTHER,
          precondition: view?.writesPrecondition(),
          requestId: requestId(),
        });
        await this.storing(key, values, (whole) =>
          this.transport.call(CheckpointServiceService.putWrites, {
            ...request,
            writes: writes.map(([channel], at) => taskWrite(text("channel", channel), FIXED_IDX.get(channel) ?? at, whole[at]!)),
          }),
        );
      } catch (error) {
        throw this.runs.refused(view, error);
      }
    });
  }

  // Whole threads.

  /** Deletes a thread: all its namespaces, values and writes. Does nothing if there is no such thread. */
  override async deleteThread(threadId: string): Promise<void> {
    this.runs.forgetContext();
    await this.queues.settle(threadOf(threadId));
    await this.transport.call(ThreadServiceService.deleteThread, DeleteThreadRequest.fromPartial({ threadId: threadOf(threadId) }));
  }

  /** Copies a thread, or forks it at a checkpoint of its root namespace, into a thread that must not exist yet. */
  async copyThread(source: string, target: string, options: { checkpointId?: string } = {}): Promise<void> {
    await this.queues.settle(threadOf(source));
    const request = CopyThreadRequest.fromPartial({
      sourceThreadId: threadOf(source),
      targetThreadId: threadOf(target),
      checkpointId: options.checkpointId || undefined,
      requestId: requestId(),
    });
    await this.transport.call(ThreadServiceService.copyThread, request);
  }

  /** Deletes history: all but the newest checkpoint of each namespace ("keepLatest"), or all of it ("delete"). */
  async prune(threadIds: string[], options: { strategy?: "keepLatest" | "delete" } = {}): Promise<void> {
    if (!Array.isArray(threadIds)) throw new InvalidArgumentError("thread_ids: must be an array of names", "thread_ids");
    const strategy = options.strategy === "delete" ? PruneStrategy.DELETE : PruneStrategy.KEEP_LATEST;
    this.runs.forgetContext();
    for (const threadId of threadIds.map(threadOf)) {
      await this.queues.settle(threadId);
      await this.transport.call(ThreadServiceService.pruneThreads, PruneThreadsRequest.fromPartial({ threadIds: [threadId], strategy }));
    }
  }

  // What the methods above share.

  private reader(): Reader {
    return new Reader(this.transport, this.serde, () => this.getNextVersion(undefined));
  }

  private async dump(value: unknown, checksum: boolean): Promise<TypedValue> {
    const [type, data] = await this.serde.dumpsTyped(value);
    // A copy: a Uint8Array of the state may change while it is sent.
    return typedValue(type, data === value ? Uint8Array.from(data) : data, checksum);
  }

  /** Returns a value as plain JSON has it, so that filters and metadata are encoded alike. */
  private async plain(value: object): Promise<Record<string, unknown>> {
    const [type, data] = await this.serde.dumpsTyped(value);
    return JSON.parse(type === "json" ? utf8.decode(data) : JSON.stringify(value)) as Record<string, unknown>;
  }

  private async outgoingPut(
    key: Key,
    checkpoint: Checkpoint,
    parentId: string,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<{ request: PutCheckpointRequest; values: TypedValue[] }> {
    const channelValues: Record<string, unknown> = checkpoint.channel_values ?? {};
    const changed = Object.entries(newVersions ?? {});
    const extra = extraFields(checkpoint);
    const [stored, index, packed, ...values] = await Promise.all([
      this.dump(metadata, false),
      this.plain(metadata),
      extra === undefined ? undefined : this.serde.dumpsTyped(extra),
      ...changed.map(([channel]) => (holds(channelValues, channel) ? this.dump(channelValues[channel], true) : undefined)),
    ]);
    const versions = Object.entries(checkpoint.channel_versions ?? {});
    const request = PutCheckpointRequest.fromPartial({
      ...key,
      checkpointId: text("checkpoint_id", checkpoint.id),
      parentCheckpointId: text("checkpoint_id", parentId),
      body: Buffer.from(bodyOf(checkpoint, packed)),
      channels: versions.map(([channel]) => text("channel", channel)),
      channelVersions: versions.map(([, version]) => versionTag(version)),
      values: changed.map(([channel, version], at) => ({ channel: text("channel", channel), version: versionTag(version), value: values[at] })),
      // Without an index the server looks into the value itself, if it is small.
      metadata: {
        value: stored,
        index: stored!.type === "json" && stored!.data.length <= MAX_INDEX_BYTES ? Buffer.alloc(0) : Buffer.from(indexOf(index)),
      },
      requestId: requestId(),
    });
    return { request, values: values.filter((value) => value !== undefined) };
  }

  /** Stores values with a request; what is too large for it is sent ahead, and once more if it went away meanwhile. */
  private async storing<T>(key: Key, values: TypedValue[], send: (values: TypedValue[]) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await send([...(await sendAhead(this.transport, key.threadId, values))]);
      } catch (error) {
        if (!(error instanceof BaseMissingError) || tries === TRIES) throw error;
      }
    }
  }
}

function holds(values: Record<string, unknown>, channel: string): boolean {
  return Object.prototype.hasOwnProperty.call(values, channel) && values[channel] !== undefined;
}

function taskWrite(channel: string, idx: number, value: TypedValue): TaskWrite {
  return { ...TaskWrite.fromPartial({ idx, channel }), value };
}
