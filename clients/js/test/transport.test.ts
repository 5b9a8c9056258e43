/** Servers that are away, hang, or say no; and options that can't be used. */
import { createServer, type Server } from "node:net";
import { connect } from "node:net";
import { once } from "node:events";

import { inject } from "vitest";

import { DeadlineExceededError, GrpcSaver, InvalidArgumentError, ServerUnavailableError } from "../src/index.js";

const thread = { configurable: { thread_id: "transport" } };
/** Nothing listens there. A port that was closed could be another program's a moment later. */
const away = "127.0.0.1:1";

async function listening(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

it("gives up when the retry budget is used up", async () => {
  const saver = new GrpcSaver({ target: away, retryBudget: 0.5 });
  const begun = performance.now();
  await expect(saver.getTuple(thread)).rejects.toBeInstanceOf(ServerUnavailableError);
  expect(performance.now() - begun).toBeGreaterThan(450);
  saver.close();
});

it("goes on when the server comes back within the budget", async () => {
  const [, port] = inject("target").split(":");
  let isBack = false;
  const proxy = createServer((client) => {
    if (!isBack) return void client.destroy();
    const server = connect(Number(port), "127.0.0.1");
    client.pipe(server).pipe(client);
    client.on("error", () => server.destroy());
    server.on("error", () => client.destroy());
  });
  const saver = new GrpcSaver({ target: await listening(proxy), retryBudget: 30 });
  const read = saver.getTuple(thread);
  setTimeout(() => (isBack = true), 300);
  expect(await read).toBeUndefined();
  saver.close();
  proxy.close();
});

it("ends a call that is never answered", async () => {
  const silent = createServer(() => {});
  const saver = new GrpcSaver({ target: await listening(silent), timeout: 0.3, retryBudget: 0 });
  const error = await saver.getTuple(thread).catch((thrown: unknown) => thrown);
  expect(error instanceof DeadlineExceededError || error instanceof ServerUnavailableError).toBe(true);
  saver.close();
  silent.close();
});

it("goes to another replica where one is away", async () => {
  const saver = new GrpcSaver({ target: `${away},${inject("target")}`, retryBudget: 0 });
  for (let at = 0; at < 6; at++) expect(await saver.getTuple(thread)).toBeUndefined();
  saver.close();
});

it("doesn't call on a closed saver", async () => {
  const saver = new GrpcSaver({ target: inject("target") });
  saver.close();
  await expect(saver.getTuple(thread)).rejects.toThrow("closed");
});

it.each([
  [{ target: "http://user:secret@host" }, "target"],
  [{ target: "host" }, "target"],
  [{ timeout: 0 }, "timeout"],
  [{ retryBudget: -1 }, "retryBudget"],
  [{ token: "a\nb" }, "token"],
  [{ target: "agents.example.com:443", token: "secret" }, "token"],
  [{ tls: { privateKey: "-----BEGIN PRIVATE KEY-----" } }, "tls"],
  [{ tls: { rootCertificates: "/etc/ca.pem" } }, "tls"],
  [{ concurrency: "none" as "optimistic" }, "concurrency"],
])("refuses %o", (options, field) => {
  const build = () => new GrpcSaver(options);
  expect(build).toThrow(InvalidArgumentError);
  try {
    build();
  } catch (error) {
    expect(error).toMatchObject({ field });
    expect(String(error)).not.toContain("secret");
  }
});

it("takes the environment's target and token", () => {
  process.env.CHECKPOINTD_TARGET = "agents.example.com:443";
  process.env.CHECKPOINTD_TOKEN = "secret";
  try {
    expect(() => new GrpcSaver()).toThrow("plain text to agents.example.com:443");
    expect(() => new GrpcSaver({ tls: true }).close()).not.toThrow();
  } finally {
    delete process.env.CHECKPOINTD_TARGET;
    delete process.env.CHECKPOINTD_TOKEN;
  }
});
