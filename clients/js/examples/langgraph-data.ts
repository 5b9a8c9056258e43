/** What LangGraph for Python stores, read as plain data: msgpack with its extension types, ids, and channels' versions. */
import { randomBytes } from "node:crypto";

import { Decoder, Encoder, ExtData, ExtensionCodec } from "@msgpack/msgpack";

import { TypedValue } from "@checkpointd/langgraph-checkpoint/protocol";

const codec = new ExtensionCodec();
const decoder = new Decoder({ extensionCodec: codec });
const encoder = new Encoder();

// Each extension holds msgpack. What it stands for is plain data, if one leaves out which class it was of.
const parts = (data: Uint8Array) => decoder.decode(data) as unknown[];
const read: ((data: Uint8Array) => unknown)[] = [
  (data) => parts(data)[2], // 0: [module, class, argument]: sets, UUIDs, decimals, enums, paths
  (data) => parts(data)[2], // 1: [module, class, [arguments]]: dates, time spans, regular expressions
  (data) => parts(data)[2], // 2: [module, class, {name: argument}]: dataclasses, named tuples, times
  (data) => parts(data)[2], // 3: [module, class, argument, method]: moments, as ISO 8601
  (data) => parts(data)[2], // 4: [module, class, {field: value}]: models of Pydantic 1
  (data) => parts(data)[2], // 5: [module, class, {field: value}, method]: models of Pydantic 2, such as messages
  (data) => parts(data), // 6: [type, shape, order, bytes]: arrays of NumPy
  (data) => decoder.decode(data), // 7: a value: the snapshot of a delta channel
];
read.forEach((decode, type) => codec.register({ type, encode: () => null, decode }));

/** Returns a stored value as plain data. */
export function plain(value: TypedValue): unknown {
  switch (value.type) {
    case "msgpack":
      return decoder.decode(value.data);
    case "json":
      return JSON.parse(value.data.toString());
    case "null":
      return null;
    default:
      return value.data; // bytes, or another serializer's
  }
}

/** Returns a checkpoint's own fields. */
export function bodyOf(body: Uint8Array): Record<string, any> {
  return decoder.decode(body) as Record<string, any>;
}

/** Makes a value of plain data, and of what `message` returns. */
export function msgpack(value: unknown): TypedValue {
  const data = value === null ? Buffer.alloc(0) : Buffer.from(encoder.encode(value));
  return TypedValue.fromPartial({ type: value === null ? "null" : "msgpack", data });
}

/** Makes a message as LangChain for Python reads it. */
export function message(content: string): ExtData {
  const fields = { content, additional_kwargs: {}, response_metadata: {}, type: "human", name: null, id: crypto.randomUUID() };
  return new ExtData(5, encoder.encode(["langchain_core.messages.human", "HumanMessage", fields, "model_validate_json"]));
}

/** Adds to a list without a look at what is in it: its entries stay the bytes that they are, other classes included. */
export function appended(list: TypedValue, entry: ExtData): TypedValue {
  const { data } = list;
  // The three headers of a msgpack array: the length in 4 bits, in 16 and in 32.
  const [length, header] =
    (data[0]! & 0xf0) === 0x90 ? [data[0]! & 0x0f, 1] : data[0] === 0xdc ? [data.readUInt16BE(1), 3] : [data.readUInt32BE(1), 5];
  const longer = Buffer.alloc(5);
  longer.writeUInt8(0xdd);
  longer.writeUInt32BE(length + 1, 1);
  return { ...list, data: Buffer.concat([longer, data.subarray(header), encoder.encode(entry)]), crc32: 0 };
}

/** Returns a version of a channel that is greater than all that are there. */
export function nextVersion(versions: string[]): string {
  // "s" says that it is text: 32 digits, a point, random digits.
  const greatest = Math.max(0, ...versions.map((version) => parseInt(version.slice(1), 10)));
  const random = BigInt(`0x${randomBytes(7).toString("hex")}`) % 10n ** 16n;
  return `s${String(greatest + 1).padStart(32, "0")}.${String(random).padStart(16, "0")}`;
}

/** Returns a version 6 UUID: its texts sort by time. crypto.randomUUID() makes version 4, which don't. */
export function uuid6(): string {
  // In units of 100 ns since 1582: 60 bits, more than a number holds exactly.
  const time = (BigInt(Date.now()) * 10_000n + 0x01b21dd213814000n).toString(16).padStart(15, "0");
  const random = randomBytes(8);
  random[0] = (random[0]! & 0x3f) | 0x80;
  const tail = random.toString("hex");
  return `${time.slice(0, 8)}-${time.slice(8, 12)}-6${time.slice(12)}-${tail.slice(0, 4)}-${tail.slice(4)}`;
}
