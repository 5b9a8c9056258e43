/** What is stored comes back as it was: large values, odd ones, versions, metadata, filters. */
import { randomBytes, randomUUID } from "node:crypto";

import { emptyCheckpoint, type Checkpoint } from "@langchain/langgraph-checkpoint";
import { inject } from "vitest";

import { GrpcSaver, InvalidArgumentError } from "../src/index.js";

let saver: GrpcSaver;
beforeAll(() => {
  saver = new GrpcSaver({ target: inject("target") });
});
afterAll(() => saver.close());

const config = () => ({ configurable: { thread_id: randomUUID(), checkpoint_ns: "" } });
const meta = { source: "loop" as const, step: 0, parents: {} };

async function stored(checkpoint: Partial<Checkpoint>, metadata: object = meta) {
  const thread = config();
  const whole = { ...emptyCheckpoint(), id: "1", ...checkpoint };
  const put = await saver.put(thread, whole, metadata as typeof meta, whole.channel_versions);
  return { thread, put };
}

it("keeps values that no message holds", async () => {
  const large = randomBytes(3_000_000);
  const text = "ä".repeat(5_000_000);
  const { thread, put } = await stored({ channel_values: { large: new Uint8Array(large), text, small: 1 }, channel_versions: { large: 1, text: 1, small: 1 } });
  await saver.putWrites(put, [["text", text]], "task");
  const found = (await saver.getTuple(thread))!;
  expect(Buffer.compare(Buffer.from(found.checkpoint.channel_values.large as Uint8Array), large)).toBe(0);
  expect(found.checkpoint.channel_values.text === text).toBe(true);
  expect(found.pendingWrites![0]![2] === text).toBe(true);
  const listed = [];
  for await (const each of saver.list(thread)) listed.push(each.checkpoint.channel_values.text === text);
  expect(listed).toEqual([true]);
});

it("keeps versions as they are: texts, integers and floats", async () => {
  const channel_versions = { a: "00000000000000000000000000000002.0571", b: 7, c: 1.5 };
  const { thread } = await stored({ channel_values: { a: 1, b: 2, c: 3 }, channel_versions });
  const found = (await saver.getTuple(thread))!.checkpoint;
  expect(found.channel_versions).toEqual(channel_versions);
  expect(found.channel_values).toEqual({ a: 1, b: 2, c: 3 });
});

it("makes versions as Python does, that sort and are never the same", () => {
  const first = saver.getNextVersion(undefined);
  expect(first).toMatch(/^0{31}1\.[0-9]{17}$/);
  const next = saver.getNextVersion(first);
  expect(next > first).toBe(true);
  expect(saver.getNextVersion(first)).not.toBe(next);
});

it("loads an unchanged channel from the put that changed it", async () => {
  const { thread, put } = await stored({ channel_values: { a: "kept" }, channel_versions: { a: 1 } });
  await saver.put(put, { ...emptyCheckpoint(), id: "2", channel_versions: { a: 1, b: 1 }, channel_values: { a: "kept", b: null } }, meta, { b: 1 });
  const found = (await saver.getTuple(thread))!.checkpoint;
  expect(found.channel_values).toEqual({ a: "kept", b: null });
});

it("keeps fields of a checkpoint that it doesn't know", async () => {
  const { thread } = await stored({ later: { nested: [1, "two"] } } as Partial<Checkpoint>);
  expect((await saver.getTuple(thread))!.checkpoint).toMatchObject({ v: 4, later: { nested: [1, "two"] } });
});

it("finds checkpoints by their metadata, nested entries included", async () => {
  const mark = randomUUID();
  const { thread } = await stored({}, { ...meta, user: { name: mark, tags: ["a", "b"] }, huge: "x".repeat(100_000) });
  await stored({}, { ...meta, user: { name: "other" } });
  const found = [];
  for await (const each of saver.list({}, { filter: { user: { name: mark, tags: ["b"] } } })) found.push(each.config.configurable!.thread_id);
  expect(found).toEqual([thread.configurable.thread_id]);
});

it("orders one task's special writes, of which the last counts", async () => {
  const { thread, put } = await stored({});
  await Promise.all(Array.from({ length: 20 }, (_, at) => saver.putWrites(put, [["__resume__", at]], "task")));
  expect((await saver.getTuple(thread))!.pendingWrites).toEqual([["task", "__resume__", 19]]);
});

it("copies, forks and prunes threads", async () => {
  const { thread, put } = await stored({ channel_values: { a: 1 }, channel_versions: { a: 1 } });
  await saver.put(put, { ...emptyCheckpoint(), id: "2" }, meta, {});
  const [copy, fork] = [randomUUID(), randomUUID()];
  await saver.copyThread(thread.configurable.thread_id, copy);
  await saver.copyThread(thread.configurable.thread_id, fork, { checkpointId: "1" });
  const ids = async (thread_id: string) => {
    const found = [];
    for await (const each of saver.list({ configurable: { thread_id } })) found.push(each.checkpoint.id);
    return found;
  };
  expect([await ids(copy), await ids(fork)]).toEqual([["2", "1"], ["1"]]);
  await saver.prune([copy]);
  expect(await ids(copy)).toEqual(["2"]);
  await saver.prune([copy], { strategy: "delete" });
  expect(await ids(copy)).toEqual([]);
});

it("says what is wrong with an argument, and stores nothing", async () => {
  const error = await saver.getTuple({ configurable: { thread_id: "x".repeat(1000) } }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InvalidArgumentError);
  expect(error).toMatchObject({ field: "thread_id", limit: 512 });
  await expect(saver.putWrites(config(), [["a", 1]], "task")).rejects.toThrow("checkpoint_id");
  await expect(saver.getTuple({ configurable: { thread_id: "\ud800" } })).rejects.toThrow("lone surrogate");
});
