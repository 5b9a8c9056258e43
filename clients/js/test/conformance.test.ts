/** LangGraph.js's own suite, whole, and its opt-in suite of delta channels. */
import { deltaChannelHistoryTests, validate } from "@langchain/langgraph-checkpoint-validation";
import { inject } from "vitest";

import { GrpcSaver } from "../src/index.js";

/** Each saver of the suite is to see nothing that another has stored. */
async function emptied(saver: GrpcSaver): Promise<GrpcSaver> {
  const threads = new Set<string>();
  for await (const { config } of saver.list({})) threads.add(config.configurable!.thread_id as string);
  for (const thread of threads) await saver.deleteThread(thread);
  return saver;
}

const initializer = {
  checkpointerName: "GrpcSaver",
  createCheckpointer: () => emptied(new GrpcSaver({ target: inject("target") })),
  destroyCheckpointer: async (saver: GrpcSaver) => (await emptied(saver)).close(),
};

validate(initializer);
deltaChannelHistoryTests(initializer);
