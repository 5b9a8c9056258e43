/** What PortableSerializer carries, and what it refuses. */
import { AIMessage, HumanMessage, RemoveMessage, ToolMessage } from "@langchain/core/messages";
import { Overwrite, Send } from "@langchain/langgraph";
import { DeltaSnapshot } from "@langchain/langgraph-checkpoint";

import { PortableSerializer, UnportableValueError } from "../src/index.js";

const serializer = new PortableSerializer();

it.each([
  null,
  true,
  "text",
  1.5,
  [1, [2]],
  { a: { b: [null] } },
  new Set([1, 2]),
  new Map([["a", 1]]),
  new Uint8Array([1, 2]),
  { bytes: new Uint8Array([1, 2]) },
])("carries %o", async (value) => {
  expect(await serializer.loadsTyped(...(await serializer.dumpsTyped(value)))).toEqual(value);
});

it("carries messages, sends and snapshots", async () => {
  const value = [
    new HumanMessage({ content: "hi", id: "1" }),
    new AIMessage({ content: "", tool_calls: [{ name: "f", args: { x: 1 }, id: "t", type: "tool_call" }] }),
    new ToolMessage({ content: "r", tool_call_id: "t" }),
    new RemoveMessage({ id: "1" }),
    new DeltaSnapshot([1]),
  ];
  const found = (await serializer.loadsTyped(...(await serializer.dumpsTyped(value)))) as typeof value;
  expect(found.map((each) => each.constructor.name)).toEqual(value.map((each) => each.constructor.name));
  const [, send] = await serializer.dumpsTyped(new Send("node", { messages: value }));
  expect(JSON.parse(new TextDecoder().decode(send))).toMatchObject({ node: "node" });
  await serializer.dumpsTyped(new Overwrite([1]));
});

const circle: Record<string, unknown> = {};
circle.self = circle;

it.each([
  [{ when: new Date() }, "when: PortableSerializer can't carry an instance of Date"],
  [[1, NaN], "[1]: JSON has no infinity and no NaN"],
  [{ a: { f: () => 1 } }, "a.f: PortableSerializer can't carry a function"],
  [10n, "the value: PortableSerializer can't carry a bigint"],
  [/x/, "RegExp"],
  [new Error("x"), "Error"],
  [circle, "self: it holds itself"],
  ["\ud800", "lone surrogate"],
  [{ lc: 1, type: "constructor", id: ["langchain_core", "messages", "AIMessage"], kwargs: {} }, 'the key "lc"'],
  [[new HumanMessage({ content: "x", additional_kwargs: { at: new Date() } as Record<string, unknown> })], "[0].additional_kwargs.at"],
])("refuses %o by its place", async (value, said) => {
  const error = await serializer.dumpsTyped(value).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(UnportableValueError);
  expect((error as Error).message).toContain(said);
});
