/** Values that are too large for one message: sent ahead in parts, and read in ranges. */
import { randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";

import { CorruptValueError } from "./errors.js";
import { TypedValue } from "./gen/checkpointd/v1/values.js";
import { GetValueRequest, PutPartRequest, ValueServiceService } from "./gen/checkpointd/v1/value_service.js";
import type { Transport } from "./transport.js";

/** The largest part, in bytes; a value that is larger is sent ahead. */
const PART_BYTES = 1024 * 1024;
/** How many bytes of values a request holds; beyond, the largest go ahead. */
const MAX_REQUEST_BYTES = 4 * 1024 * 1024;
/** How many parts, or ranges, are under way at once. */
const CONCURRENCY = 4;
/** The largest value that is read, in bytes, as the protocol has it. */
const MAX_VALUE_BYTES = 1024 * 1024 * 1024;

/** A value was deleted or replaced while it was read. */
export class ValueGoneError extends Error {}

/** A value that was read, with its bytes. */
export type Whole = Pick<TypedValue, "type" | "data">;

/** Where a value that was left out of an answer is stored. */
export type Place = GetValueRequest["value"];

/** Makes the message of a serialized value. */
export function typedValue(type: string, data: Uint8Array, checksum: boolean): TypedValue {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return TypedValue.fromPartial({ type, data: bytes, crc32: checksum ? crc32(bytes) : 0 });
}

/**
 * Sends ahead what is too large for a request.
 *
 * @param values - The request's values.
 * @returns These values, with parts in place of bytes where they were sent ahead.
 */
export async function sendAhead(transport: Transport, threadId: string, values: TypedValue[]): Promise<TypedValue[]> {
  let inline = values.reduce((sum, value) => sum + value.data.length, 0);
  const ahead = new Set<number>();
  for (const at of values.map((_, at) => at).sort((a, b) => values[b]!.data.length - values[a]!.data.length)) {
    if (values[at]!.data.length <= PART_BYTES && inline <= MAX_REQUEST_BYTES) break;
    if (values[at]!.data.length === 0) break;
    ahead.add(at);
    inline -= values[at]!.data.length;
  }
  if (ahead.size === 0) return values;
  const uploads = new Map([...ahead].map((at) => [at, randomBytes(16)]));
  const parts = [...uploads].flatMap(([at, uploadId]) => {
    const { data } = values[at]!;
    const offsets = Array.from({ length: Math.ceil(data.length / PART_BYTES) }, (_, part) => part * PART_BYTES);
    return offsets.map((offset) => ({ threadId, uploadId, offset: BigInt(offset), data: data.subarray(offset, offset + PART_BYTES) }));
  });
  await forEach(parts, (part) => transport.call(ValueServiceService.putPart, PutPartRequest.fromPartial(part)));
  return values.map((value, at) => {
    const uploadId = uploads.get(at);
    if (uploadId === undefined) return value;
    return { ...value, data: Buffer.alloc(0), parts: { uploadId, size: BigInt(value.data.length) } };
  });
}

/**
 * Reads what an answer left out.
 *
 * @throws ValueGoneError If one of the values has been deleted or replaced since.
 */
export async function fetchAll(
  transport: Transport,
  key: { threadId: string; checkpointNs: string },
  values: { value: TypedValue; place: Place }[],
): Promise<Whole[]> {
  const found: Whole[] = values.map(({ value }) => value);
  const apart = values.flatMap(({ value, place }, at) => (value.parts === undefined ? [] : [{ at, value, place }]));
  await forEach(apart, async ({ at, value, place }) => {
    found[at] = { type: value.type, data: await fetchOne(transport, key, place, value.parts!.size) };
  });
  return found;
}

async function fetchOne(
  transport: Transport,
  key: { threadId: string; checkpointNs: string },
  place: Place,
  size: bigint,
): Promise<Buffer> {
  if (size < 0n || size > BigInt(MAX_VALUE_BYTES)) throw new CorruptValueError("the server answered with a size that no value has");
  const ranges: Buffer[] = [];
  let have = 0;
  let checksum = 0;
  while (have < Number(size)) {
    const request = GetValueRequest.fromPartial({ ...key, value: place, offset: BigInt(have), maxBytes: BigInt(PART_BYTES) });
    const range = await transport.call(ValueServiceService.getValue, request);
    if (!range.found || range.size !== size) throw new ValueGoneError();
    if (range.data.length === 0 || have + range.data.length > Number(size)) {
      throw new CorruptValueError("the server answered with another range of a value than was asked for");
    }
    ranges.push(range.data as Buffer);
    have += range.data.length;
    checksum = range.crc32;
  }
  const whole = Buffer.concat(ranges);
  if (checksum !== 0 && crc32(whole) !== checksum) throw new ValueGoneError();
  return whole;
}

async function forEach<T>(items: T[], work: (item: T) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < items.length) await work(items[next++]!);
  };
  await Promise.all(Array.from({ length: Math.min(CONCURRENCY, items.length) }, worker));
}
