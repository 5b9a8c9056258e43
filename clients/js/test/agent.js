/**
 * An agent that is the same in Python (tests/languages/test_shared_threads.py): it plans, asks a human, and works on what its plan
 * has spread. Run with a server, a thread, the serializer and what to do; prints what came of it as JSON.
 */
import { AIMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { emptyCheckpoint } from "@langchain/langgraph-checkpoint";
import { Annotation, Command, END, MessagesAnnotation, START, Send, StateGraph, interrupt } from "@langchain/langgraph";

import { GrpcSaver, PortableSerializer } from "../dist/index.js";

const [target, threadId, serde, action, given] = process.argv.slice(2);
const saver = new GrpcSaver({ target, serde: serde === "portable" ? new PortableSerializer() : undefined });

const State = Annotation.Root({
  ...MessagesAnnotation.spec,
  done: Annotation({ reducer: (a, b) => a.concat(b), default: () => [] }),
  note: Annotation(),
});

const graph = new StateGraph(State)
  .addNode("plan", ({ messages }) => ({
    messages: [new AIMessage({ content: `js plans ${messages.length}`, tool_calls: [{ name: "look", args: { at: "it" }, id: "call", type: "tool_call" }] })],
    note: { by: "js", tags: ["a", null, 1.5], bytes: new Uint8Array([0, 255]) },
  }))
  .addNode("ask", () => {
    const answer = interrupt({ question: "go on?", options: ["yes", "no"] });
    return { messages: [new ToolMessage({ content: `js heard ${answer}`, tool_call_id: "call" })] };
  })
  .addNode("work", ({ item }) => ({ done: [`js ${item}`] }))
  .addEdge(START, "plan")
  .addEdge("plan", "ask")
  .addConditionalEdges("ask", () => ["one", "two"].map((item) => new Send("work", { item })), ["work"])
  .addEdge("work", END)
  .compile({ checkpointer: saver });

const config = { configurable: { thread_id: threadId } };
try {
  if (action === "say") await graph.invoke({ messages: [new HumanMessage(given)] }, config);
  if (action === "resume") await graph.invoke(new Command({ resume: given }), config);
  if (action === "resume-to-work") await graph.invoke(new Command({ resume: given }), { ...config, interruptBefore: ["work"] });
  if (action === "continue") await graph.invoke(null, config);
  // Writes that nothing was read for: only the server can tell that they don't fit.
  const beside = { configurable: { ...config.configurable, checkpoint_ns: "", checkpoint_id: given } };
  if (action === "put") await saver.put(beside, emptyCheckpoint(), { source: "update", step: 1, parents: {} }, {});
  if (action === "put-writes") await saver.putWrites(beside, [["note", new Uint8Array([1])]], "task");
  if (action === "update") await graph.updateState(config, { messages: [new HumanMessage(given)] }, "ask");
  const { values, next } = await graph.getState(config);
  const pending = (await saver.getTuple(config))?.pendingWrites ?? [];
  console.log(
    JSON.stringify({
      messages: (values.messages ?? []).map((message) => [message.getType(), message.content, message.id ?? null]),
      calls: (values.messages ?? []).flatMap((message) => message.tool_calls ?? []),
      done: values.done ?? [],
      note: { ...values.note, bytes: [...(values.note?.bytes ?? [])] },
      next,
      waits: pending.filter(([, channel]) => channel === "__interrupt__").flatMap(([, , value]) => value.map((each) => each.value)),
    }),
  );
} catch (error) {
  console.log(JSON.stringify({ error: error.name, message: error.message, family: error.family }));
}
saver.close();
