/** A server that speaks TLS and asks for tokens. The tests of the whole repository start one. */
import { readFileSync } from "node:fs";

import { AccessDeniedError, GrpcSaver, InvalidArgumentError, ServerUnavailableError } from "../src/index.js";

const target = process.env.CHECKPOINTD_TEST_TLS_TARGET;
const token = process.env.CHECKPOINTD_TEST_TLS_TOKEN;
const ca = process.env.CHECKPOINTD_TEST_TLS_CA;
const thread = { configurable: { thread_id: "access" } };

describe.skipIf(target === undefined)("TLS and tokens", () => {
  const tls = () => ({ rootCertificates: readFileSync(ca!) });

  it("serves who has the token and trusts the authority", async () => {
    const saver = new GrpcSaver({ target, token, tls: tls() });
    expect(await saver.getTuple(thread)).toBeUndefined();
    saver.close();
  });

  it("asks for the token before each call", async () => {
    let calls = 0;
    const refreshed = async () => (++calls === 1 ? `${token}\n` : "another");
    const saver = new GrpcSaver({ target, token: refreshed, tls: tls() });
    expect(await saver.getTuple(thread)).toBeUndefined();
    await expect(saver.getTuple(thread)).rejects.toBeInstanceOf(AccessDeniedError);
    saver.close();
  });

  it("refuses who has none, or one that can't be sent", async () => {
    const saver = new GrpcSaver({ target, tls: tls() });
    await expect(saver.getTuple(thread)).rejects.toBeInstanceOf(AccessDeniedError);
    saver.close();
    const broken = new GrpcSaver({ target, token: () => "a\nb", tls: tls() });
    await expect(broken.getTuple(thread)).rejects.toBeInstanceOf(InvalidArgumentError);
    broken.close();
  });

  it("doesn't talk to a server whose authority it doesn't trust", async () => {
    const saver = new GrpcSaver({ target, token, tls: true, retryBudget: 0 });
    await expect(saver.getTuple(thread)).rejects.toBeInstanceOf(ServerUnavailableError);
    saver.close();
  });
});
