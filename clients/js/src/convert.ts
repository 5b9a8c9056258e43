/** LangGraph's arguments as the protocol has them, and back: names, versions, bodies, metadata. */
import { randomBytes } from "node:crypto";

import type { RunnableConfig } from "@langchain/core/runnables";
import type { Checkpoint } from "@langchain/langgraph-checkpoint";
import { decode, encode } from "@msgpack/msgpack";

import { CorruptValueError, InvalidArgumentError } from "./errors.js";

/** What LangGraph itself writes into metadata: it goes into the index first. */
const OWN_KEYS = new Set(["source", "step", "run_id", "parents", "counters_since_delta_snapshot", "delta_writes_versioned"]);
/** The largest index, in bytes. */
export const MAX_INDEX_BYTES = 64 * 1024;
const MAX_INDEX_DEPTH = 32;
const MAP_HEADER_BYTES = 5;
const LARGEST_INTEGER = 2n ** 63n;

/** Keys of a checkpoint that are in the body as msgpack. */
const PLAIN = new Set(["v", "ts", "versions_seen", "updated_channels"]);
/** Keys of a checkpoint that travel beside the body. */
const ELSEWHERE = new Set(["id", "channel_versions", "channel_values"]);

/** A namespace: what a version belongs to. */
export interface Key {
  threadId: string;
  checkpointNs: string;
}

/** Returns the namespace that a config names. Throws InvalidArgumentError. */
export function keyOf(config: RunnableConfig): Key {
  const configurable = config.configurable ?? {};
  return { threadId: threadOf(configurable.thread_id), checkpointNs: text("checkpoint_ns", configurable.checkpoint_ns ?? "") };
}

/** Returns a thread id as text: LangGraph takes numbers too. Throws InvalidArgumentError. */
export function threadOf(threadId: unknown): string {
  if (threadId === undefined || threadId === null) {
    throw new InvalidArgumentError('thread_id: missing; pass { configurable: { thread_id: "..." } }', "thread_id");
  }
  if (typeof threadId !== "string" && typeof threadId !== "number" && typeof threadId !== "bigint") {
    throw new InvalidArgumentError(`thread_id: must be one name, not ${typeof threadId}`, "thread_id");
  }
  const name = text("thread_id", String(threadId));
  if (name === "") throw new InvalidArgumentError("thread_id: must not be empty", "thread_id");
  return name;
}

/** Returns a text that UTF-8 can carry. Throws InvalidArgumentError. */
export function text(field: string, value: unknown): string {
  if (typeof value !== "string") throw new InvalidArgumentError(`${field}: must be text, not ${typeof value}`, field);
  if (/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(value)) {
    throw new InvalidArgumentError(`${field}: is not valid Unicode (it holds a lone surrogate)`, field);
  }
  return value;
}

/** Returns the config of a checkpoint: these three keys and no others, since LangGraph compares configs. */
export function configOf(key: Key, checkpointId: string): RunnableConfig {
  return { configurable: { thread_id: key.threadId, checkpoint_ns: key.checkpointNs, checkpoint_id: checkpointId } };
}

/** Returns an id by which a write that is sent again is recognized. */
export function requestId(): Buffer {
  return randomBytes(16);
}

/** Returns a channel's version as tagged text: "s" and a text, "i" and an integer, "f" and a float. Throws InvalidArgumentError. */
export function versionTag(version: unknown): string {
  if (typeof version === "string") return `s${text("channel_versions", version)}`;
  if (typeof version === "number" && Number.isSafeInteger(version)) return `i${Object.is(version, -0) ? 0 : version}`;
  if (typeof version === "number" && Number.isFinite(version)) return `f${version}`;
  throw new InvalidArgumentError("channel_versions: a version must be a text or a finite number", "channel_versions");
}

/** Returns the version of a tagged text. Throws CorruptValueError. */
export function versionOf(tag: string): string | number {
  if (tag.startsWith("s")) return tag.slice(1);
  const number = Number(tag.slice(1));
  if (/^[if]./.test(tag) && Number.isFinite(number)) {
    if (tag.startsWith("i") && !Number.isSafeInteger(number)) {
      throw new CorruptValueError(`a channel version, ${tag.slice(1)}, is larger than JavaScript's numbers hold exactly`);
    }
    return number;
  }
  throw new CorruptValueError("the server answered with an invalid channel version");
}

/**
 * Returns a checkpoint's own fields as a msgpack map.
 *
 * @param extra - The type and the bytes of what msgpack doesn't hold, as `extraFields` names it; undefined for none.
 */
export function bodyOf(checkpoint: Checkpoint, extra: [string, Uint8Array] | undefined): Uint8Array {
  const fields = Object.entries(checkpoint).filter(([name, value]) => PLAIN.has(name) && value !== undefined);
  return encode({ ...Object.fromEntries(fields), ...(extra === undefined ? {} : { extra }) });
}

/** Returns the fields of a checkpoint that LangGraph doesn't name today; undefined if there are none. */
export function extraFields(checkpoint: Checkpoint): Record<string, unknown> | undefined {
  const found = Object.entries(checkpoint).filter(([name]) => !PLAIN.has(name) && !ELSEWHERE.has(name));
  return found.length === 0 ? undefined : Object.fromEntries(found);
}

/** Reads a checkpoint's own fields. Throws CorruptValueError. */
export function readBody(body: Uint8Array): { fields: Record<string, unknown>; extra: [string, Uint8Array] | undefined } {
  let found: unknown;
  try {
    found = decode(body);
  } catch {
    throw new CorruptValueError("a checkpoint's body isn't msgpack");
  }
  if (typeof found !== "object" || found === null || Array.isArray(found)) throw new CorruptValueError("a checkpoint's body is no map");
  const { extra, ...fields } = found as Record<string, unknown>;
  if (extra === undefined) return { fields, extra };
  if (!Array.isArray(extra) || typeof extra[0] !== "string" || !(extra[1] instanceof Uint8Array)) {
    throw new CorruptValueError("a checkpoint's body has extra fields that are none");
  }
  return { fields, extra: [extra[0], extra[1]] };
}

/** Returns what filters may see of metadata, a msgpack map: LangGraph's own entries, then the smallest, as many as fit. */
export function indexOf(metadata: Record<string, unknown>): Uint8Array {
  const sized = Object.entries(metadata)
    .filter(([, value]) => value !== undefined && nestsWithin(value, MAX_INDEX_DEPTH - 1))
    .map(([name, value]) => ({ name, value, size: encode({ [name]: value }).length, own: OWN_KEYS.has(name) }));
  sized.sort((a, b) => Number(b.own) - Number(a.own) || a.size - b.size);
  const fitting: Record<string, unknown> = {};
  let room = MAX_INDEX_BYTES - MAP_HEADER_BYTES;
  for (const { name, value, size } of sized) {
    room -= size;
    if (room < 0) break;
    fitting[name] = value;
  }
  return encode(fitting);
}

/** Builds a filter: a msgpack map that metadata is to contain. Throws InvalidArgumentError. */
export function filterOf(filter: unknown): Uint8Array {
  if (typeof filter !== "object" || filter === null || Array.isArray(filter)) {
    throw new InvalidArgumentError("filter: must be an object", "filter");
  }
  try {
    return encode(filter);
  } catch {
    throw new InvalidArgumentError(
      "filter: holds a value that can't be compared with metadata; give texts, numbers, booleans, null, and arrays and objects of them",
      "filter",
    );
  }
}

/** Returns a 64-bit version as the protocol has it. */
export function checkedVersion(version: bigint): bigint {
  if (version < 0n || version >= LARGEST_INTEGER) throw new CorruptValueError("the server answered with a version that is none");
  return version;
}

function nestsWithin(value: unknown, depth: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return depth > 0 && Object.values(value).every((item) => nestsWithin(item, depth - 1));
}
