/** Real graphs on a real server: versions, conflicts, interrupts, deletions. */
import { AsyncLocalStorage } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";

import { Annotation, Command, END, START, Send, StateGraph, interrupt } from "@langchain/langgraph";
import { emptyCheckpoint } from "@langchain/langgraph-checkpoint";
import { inject } from "vitest";

import { GrpcSaver, VersionConflictError, WriteConflictError } from "../src/index.js";

const State = Annotation.Root({ log: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }) });

/** Runs something as another request would, not as a graph nested in this one. */
const elsewhere = AsyncLocalStorage.snapshot() as <T>(work: () => T) => T;

let saver: GrpcSaver;
beforeAll(() => {
  saver = new GrpcSaver({ target: inject("target") });
});
afterAll(() => saver.close());

const config = () => ({ configurable: { thread_id: randomUUID() } });

/** A graph of two nodes, of which the first does something while it runs. */
function graphOf(checkpointer: GrpcSaver, meanwhile: () => Promise<unknown> = async () => {}) {
  return new StateGraph(State)
    .addNode("first", async () => {
      await elsewhere(meanwhile);
      return { log: ["first"] };
    })
    .addNode("second", () => ({ log: ["second"] }))
    .addEdge(START, "first")
    .addEdge("first", "second")
    .addEdge("second", END)
    .compile({ checkpointer });
}

for (const durability of ["sync", "async", "exit"] as const) {
  it(`keeps a conversation over turns, with durability ${durability}`, async () => {
    const thread = config();
    const graph = graphOf(saver);
    await graph.invoke({ log: ["one"] }, { ...thread, durability });
    await graph.invoke({ log: ["two"] }, { ...thread, durability });
    const state = await graphOf(new GrpcSaver({ target: inject("target") })).getState(thread);
    expect(state.values.log).toEqual(["one", "first", "second", "two", "first", "second"]);
  });

  it(`refuses a run that another has overtaken, with durability ${durability}`, async () => {
    const thread = config();
    await graphOf(saver).invoke({ log: ["before"] }, thread);
    const other = graphOf(saver);
    const overtake = async () => {
      // Its input is stored in the background. If the other run came first, that one could be refused instead.
      while (durability === "async" && !(await other.getState(thread)).values.log.includes("mine")) await setTimeout(5);
      await other.invoke({ log: ["other"] }, thread);
    };
    const run = graphOf(saver, overtake).invoke({ log: ["mine"] }, { ...thread, durability });
    const error = await run.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(VersionConflictError);
    const conflict = error as VersionConflictError;
    expect(conflict.threadId).toBe(thread.configurable.thread_id);
    expect(conflict.currentVersion).toBeGreaterThan(conflict.expectedVersion);
    const { values } = await other.getState(thread);
    expect(values.log).toContain("other");
    expect(values.log.filter((entry: string) => entry === "first")).toHaveLength(2);
  });
}

it("refuses two first runs on one thread", async () => {
  const thread = config();
  const run = graphOf(saver, () => graphOf(saver).invoke({ log: ["other"] }, thread)).invoke({ log: ["mine"] }, thread);
  await expect(run).rejects.toBeInstanceOf(VersionConflictError);
});

it("lets the last run win where that was asked for", async () => {
  const careless = new GrpcSaver({ target: inject("target"), concurrency: "lastWriteWins" });
  const thread = config();
  await graphOf(careless, () => graphOf(careless).invoke({ log: ["other"] }, thread)).invoke({ log: ["mine"] }, thread);
  expect((await graphOf(careless).getState(thread)).values.log).toEqual(["mine", "first", "second"]);
  careless.close();
});

it("doesn't let a thread come back that was deleted under a run", async () => {
  const thread = config();
  await graphOf(saver).invoke({ log: ["before"] }, thread);
  const run = graphOf(saver, () => saver.deleteThread(thread.configurable.thread_id)).invoke({ log: ["mine"] }, thread);
  await expect(run).rejects.toBeInstanceOf(WriteConflictError);
  expect(await saver.getTuple(thread)).toBeUndefined();
});

it("lets time travel, forks and updates from the past through", async () => {
  const thread = config();
  const graph = graphOf(saver);
  await graph.invoke({ log: ["one"] }, thread);
  const history = [];
  for await (const state of graph.getStateHistory(thread)) history.push(state);
  const past = history.find((state) => state.next[0] === "second")!;
  await graph.invoke(null, past.config);
  const forked = await graph.updateState(past.config, { log: ["edited"] });
  await graph.invoke(null, forked);
  expect((await graph.getState(thread)).values.log).toEqual(["one", "first", "edited", "second"]);
});

it("refuses an update of a state that has moved on", async () => {
  const thread = config();
  const graph = graphOf(saver);
  await graph.invoke({ log: ["one"] }, thread);
  const read = await saver.getTuple(thread);
  await elsewhere(() => graph.invoke({ log: ["two"] }, thread));
  const put = saver.put(read!.config, { ...emptyCheckpoint(), id: "zzz" }, { source: "update", step: 9, parents: {} }, {});
  await expect(put).rejects.toBeInstanceOf(VersionConflictError);
});

it("stores a put that was made by hand without a condition", async () => {
  const thread = { configurable: { thread_id: randomUUID(), checkpoint_ns: "" } };
  await saver.put(thread, { ...emptyCheckpoint(), id: "a" }, { source: "input", step: -1, parents: {} }, {});
  await saver.put(thread, { ...emptyCheckpoint(), id: "b" }, { source: "loop", step: 0, parents: {} }, {});
  expect((await saver.getTuple(thread))!.checkpoint.id).toBe("b");
});

it("resumes an interrupt in a nested graph, through another saver", async () => {
  const build = (checkpointer: GrpcSaver) => {
    const inner = new StateGraph(State)
      .addNode("ask", () => ({ log: [`answer ${interrupt({ question: "go on?" })}`] }))
      .addEdge(START, "ask")
      .compile();
    return new StateGraph(State)
      .addNode("before", () => ({ log: ["before"] }))
      .addNode("inner", async (state) => ({ log: (await inner.invoke({ log: [] })).log.concat(String(state.log.length)) }))
      .addEdge(START, "before")
      .addEdge("before", "inner")
      .compile({ checkpointer });
  };
  const thread = config();
  const first = await build(saver).invoke({ log: ["hello"] }, thread);
  expect(first).toHaveProperty("__interrupt__");
  const another = new GrpcSaver({ target: inject("target") });
  const waiting = await build(another).getState(thread);
  expect(waiting.tasks[0]!.interrupts[0]!.value).toEqual({ question: "go on?" });
  const { log } = await build(another).invoke(new Command({ resume: "yes" }), thread);
  expect(log).toEqual(["hello", "before", "answer yes", "2"]);
  another.close();
});

it("tells a run that lost in a nested graph, also where the graph ends in an interrupt", async () => {
  const thread = config();
  let lost = false;
  const inner = new StateGraph(State)
    .addNode("lose", async () => {
      if (!lost) {
        lost = true;
        // Another writer in the nested graph's namespace, and in the root.
        for await (const found of saver.list({ configurable: { thread_id: thread.configurable.thread_id } })) {
          const other = new GrpcSaver({ target: inject("target"), concurrency: "lastWriteWins" });
          await other.put(found.config, { ...found.checkpoint, id: `${found.checkpoint.id}z` }, found.metadata!, {});
          other.close();
        }
      }
      return { log: ["lost"] };
    })
    .addNode("ask", () => ({ log: [interrupt("?") as string] }))
    .addEdge(START, "lose")
    .addEdge("lose", "ask")
    .compile();
  const graph = new StateGraph(State).addNode("inner", inner).addEdge(START, "inner").compile({ checkpointer: saver });
  await expect(graph.invoke({ log: [] }, thread)).rejects.toBeInstanceOf(WriteConflictError);
});

it("finds the sends of a step again after a crash", async () => {
  let crash = true;
  const graph = new StateGraph(State)
    .addNode("spread", () => ({ log: ["spread"] }))
    .addNode("work", ({ item }: { item: string } & typeof State.State) => {
      if (item === "b" && crash) throw new Error("crash");
      return { log: [item] };
    })
    .addConditionalEdges("spread", () => ["a", "b"].map((item) => new Send("work", { item })))
    .addEdge(START, "spread")
    .compile({ checkpointer: saver });
  const thread = config();
  await expect(graph.invoke({ log: [] }, thread)).rejects.toThrow("crash");
  crash = false;
  expect((await graph.invoke(null, thread)).log).toEqual(["spread", "a", "b"]);
});

it("runs many threads at once through one saver", async () => {
  const graph = graphOf(saver);
  const threads = Array.from({ length: 20 }, config);
  const results = await Promise.all(threads.map((thread, at) => graph.invoke({ log: [String(at)] }, thread)));
  results.forEach((result, at) => expect(result.log).toEqual([String(at), "first", "second"]));
});
