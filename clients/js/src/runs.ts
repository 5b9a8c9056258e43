/**
 * What each run has read and written, so that a write can say what it expects to find.
 *
 * A run's base is what *it* read, not what its saver last saw: two runs through one saver collide as two processes do. A
 * run is recognized by what LangGraph.js passes along in every config of one execution of a graph: `metadata` is an object
 * of that graph's own, `control` one that it shares with the graphs nested in it. Both are only looked at by identity, and
 * held weakly. `updateState` has neither; there the read leaves a note in the asynchronous context, which the put finds
 * again.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { randomBytes } from "node:crypto";

import type { RunnableConfig } from "@langchain/core/runnables";

import type { Key } from "./convert.js";
import { CheckpointdError, VersionConflictError, WriteConflictError, again } from "./errors.js";
import { Precondition } from "./gen/checkpointd/v1/values.js";

/** How many of a run's own checkpoints, and of those it read, are remembered in each namespace. */
const REMEMBERED = 256;
/** How many reads outside of runs are remembered in one context. */
const MAX_CONTEXT_READS = 8;
/** How long task writes wait for the put of their checkpoint to begin, in milliseconds. */
const PUT_EXPECTED_WITHIN_MS = 1000;

const noPrecondition = Precondition.fromPartial({});

/** One execution of a graph, with all graphs nested in it. */
class Execution {
  /**
   * How another run got in the way, by thread. LangGraph drops what a nested graph's save threw when the graph is ending in
   * an interrupt; so whoever has begun before and writes next in this execution throws it again.
   */
  readonly refusals = new Map<string, { error: WriteConflictError; checkpointNs: string; at: number }>();
}

/** One namespace, as one run sees it. */
export class View {
  /** The version that this run read, or that its last put made. Undefined: its writes are unconditional. */
  version: bigint | undefined;
  readonly read = new Bounded<true>();
  readonly puts = new Bounded<true>();
  readonly failed = new Bounded<CheckpointdError>();
  /** The checkpoint that this run stored last; "" if none. */
  storedId = "";
  /** Why the last put failed, if it did: LangGraph makes no other then. */
  broken: CheckpointdError | undefined;
  /** Puts in flight, by checkpoint. */
  readonly inFlight = new Map<string, Promise<void>>();
  private waiting = new Map<string, (() => void)[]>();

  constructor(
    readonly key: Key,
    readonly token: Buffer,
    readonly began: number,
    readonly execution: Execution | undefined,
  ) {}

  /** Throws what a put has thrown that something builds on. */
  check(buildsOn: string): void {
    const error = this.failed.get(buildsOn);
    if (error !== undefined) throw again(error);
  }

  /** Whether the run has read this checkpoint or put it itself. */
  knows(checkpointId: string): boolean {
    return this.read.has(checkpointId) || this.puts.has(checkpointId);
  }

  /** Waits until a checkpoint is durable that this run is about to put: where that is refused, nothing may lie beside it. */
  async waitForPut(checkpointId: string): Promise<void> {
    if (this.version !== undefined && !this.knows(checkpointId) && this.broken === undefined) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, PUT_EXPECTED_WITHIN_MS);
        const begun = () => {
          clearTimeout(timer);
          resolve();
        };
        this.waiting.set(checkpointId, [...(this.waiting.get(checkpointId) ?? []), begun]);
      });
      this.waiting.delete(checkpointId);
    }
    await this.inFlight.get(checkpointId)?.catch(() => {});
    this.check(checkpointId);
    if (this.version !== undefined && !this.knows(checkpointId) && this.broken !== undefined) throw again(this.broken);
  }

  /** Notes that a put begins. */
  begin(checkpointId: string, put: Promise<void>): void {
    this.broken = undefined;
    this.puts.set(checkpointId, true);
    this.inFlight.set(checkpointId, put);
    for (const begun of this.waiting.get(checkpointId) ?? []) begun();
  }

  /** Notes that a put was stored. */
  stored(checkpointId: string, version: bigint): void {
    this.inFlight.delete(checkpointId);
    this.storedId = checkpointId;
    if (this.version !== undefined) this.version = version;
  }

  /** Notes that a put failed: what builds on it fails too. */
  fail(checkpointId: string, error: CheckpointdError): void {
    this.inFlight.delete(checkpointId);
    this.failed.set(checkpointId, error);
    this.broken = error;
    for (const begun of [...this.waiting.values()].flat()) begun();
  }

  /** Returns what a put expects: that the last one was this run's own, or that the version is still its base. */
  putPrecondition(): Precondition | undefined {
    if (this.version === undefined) return undefined;
    if (this.storedId) return { ...noPrecondition, ifLastWriter: this.token, ifLastCheckpointId: this.storedId };
    return { ...noPrecondition, ifVersionMatch: this.version };
  }

  /** Returns what task writes expect: that nobody else has written. Puts of this run may be under way beside them. */
  writesPrecondition(): Precondition | undefined {
    if (this.version === undefined) return undefined;
    return { ...noPrecondition, ifVersionMatch: this.version, ifLastWriter: this.token };
  }
}

/** The runs that go through a saver. */
export class Runs {
  private readonly context = new AsyncLocalStorage<ReadonlyMap<string, View>>();
  private readonly executions = new WeakMap<object, Execution>();
  private readonly runs = new WeakMap<object, { token: Buffer; began: number; execution: Execution; views: Map<string, View> }>();
  private clock = 0;

  /** @param optimistic - False to let every write be unconditional. */
  constructor(private readonly optimistic: boolean) {}

  /**
   * Begins a read. Called before anything is awaited, so that a note in the context reaches the caller.
   *
   * @returns What takes the version of the namespace that was read, and the ids of the checkpoints found.
   */
  beginRead(config: RunnableConfig, key: Key): (version: bigint, checkpointIds: string[]) => void {
    const run = this.runOf(config);
    const name = nameOf(key);
    let view: View;
    if (run !== undefined) {
      const known = run.views.get(name);
      view = known ?? new View(key, run.token, run.began, run.execution);
      run.views.set(name, view);
      const refusal = run.execution.refusals.get(key.threadId);
      // A new run reads where one of its execution was refused: so that was told, and is tried again.
      if (known === undefined && refusal?.checkpointNs === key.checkpointNs && run.began > refusal.at) {
        run.execution.refusals.delete(key.threadId);
      }
    } else {
      view = new View(key, randomBytes(16), ++this.clock, undefined);
      if (this.optimistic) {
        const notes = new Map(this.context.getStore() ?? []);
        notes.delete(name);
        notes.set(name, view);
        while (notes.size > MAX_CONTEXT_READS) notes.delete(notes.keys().next().value!);
        this.context.enterWith(notes);
      }
    }
    return (version, checkpointIds) => {
      if (!this.optimistic) return;
      if (view.version === undefined && !view.storedId && view.inFlight.size === 0) view.version = version;
      for (const id of checkpointIds) view.read.set(id, true);
    };
  }

  /**
   * Finds the view of a write's run; undefined where nothing is known. Without a run, a write belongs to the context's read
   * only if it builds on what was read, or on a put since; otherwise it is a hand-made one, and unconditional.
   *
   * @param buildsOn - The checkpoint that the write builds on; "" for a put without a parent.
   * @throws WriteConflictError What the run's execution has been refused.
   */
  viewOf(config: RunnableConfig, key: Key, buildsOn: string): View | undefined {
    const name = nameOf(key);
    const run = this.runOf(config);
    if (run !== undefined) {
      const refusal = run.execution.refusals.get(key.threadId);
      if (refusal !== undefined && run.began < refusal.at) throw again(refusal.error);
      let view = run.views.get(name);
      if (view === undefined) {
        view = new View(key, run.token, run.began, run.execution);
        run.views.set(name, view);
      }
      return view;
    }
    const view = this.optimistic ? this.context.getStore()?.get(name) : undefined;
    if (view === undefined || view.version === undefined) return undefined;
    return (buildsOn ? view.knows(buildsOn) : view.read.size === 0) ? view : undefined;
  }

  /** Forgets what was read in this context, because the threads are no longer what they were. */
  forgetContext(): void {
    if (this.context.getStore()?.size) this.context.enterWith(new Map());
  }

  /** Notes what a run's write threw, and returns it as the run is to be told. */
  refused(view: View | undefined, error: unknown): unknown {
    if (error instanceof VersionConflictError && error.expectedVersion === 0n && view?.version) {
      const { threadId, checkpointNs, currentVersion, currentCheckpointId } = error;
      const Kind = error.constructor as typeof VersionConflictError;
      error = new Kind({ threadId, checkpointNs, currentVersion, currentCheckpointId, expectedVersion: view.version });
    }
    if (error instanceof WriteConflictError && view?.execution !== undefined && !view.execution.refusals.has(view.key.threadId)) {
      view.execution.refusals.set(view.key.threadId, { error, checkpointNs: view.key.checkpointNs, at: ++this.clock });
    }
    return error;
  }

  private runOf(config: RunnableConfig) {
    const { control } = config as { control?: unknown };
    const own = config.metadata;
    if (typeof control !== "object" || control === null || typeof own !== "object" || own === null) return undefined;
    let run = this.runs.get(own);
    if (run === undefined) {
      let execution = this.executions.get(control);
      if (execution === undefined) {
        execution = new Execution();
        this.executions.set(control, execution);
      }
      run = { token: randomBytes(16), began: ++this.clock, execution, views: new Map() };
      this.runs.set(own, run);
    }
    return run;
  }
}

/** A map that forgets its oldest entries. */
class Bounded<V> {
  private readonly entries = new Map<string, V>();

  get size(): number {
    return this.entries.size;
  }

  has(key: string): boolean {
    return this.entries.has(key);
  }

  get(key: string): V | undefined {
    return this.entries.get(key);
  }

  set(key: string, value: V): void {
    this.entries.delete(key);
    this.entries.set(key, value);
    if (this.entries.size > REMEMBERED) this.entries.delete(this.entries.keys().next().value!);
  }
}

function nameOf(key: Key): string {
  return `${key.threadId}\0${key.checkpointNs}`;
}
