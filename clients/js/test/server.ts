/** The server of all tests: the one that CHECKPOINTD_TEST_TARGET names, or a real one, started and stopped here. */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    target: string;
  }
}

const installed = join(import.meta.dirname, "../../../.venv/bin/checkpointd");

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.CHECKPOINTD_TEST_TARGET;
  if (given) {
    project.provide("target", given);
    return async () => {};
  }
  const folder = mkdtempSync(join(tmpdir(), "checkpointd-js-"));
  const server = spawn(existsSync(installed) ? installed : "checkpointd", ["serve", "--listen", "127.0.0.1:0", "--data-dir", join(folder, "data")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  project.provide("target", await ready(server));
  return async () => {
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
}

function ready(server: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    server.once("error", reject);
    server.once("exit", (code) => reject(new Error(`checkpointd ended with ${code} before it was ready`)));
    server.stdout!.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const found = /checkpointd ready on (\S+)/.exec(said);
      if (found) resolve(found[1]!);
    });
  });
}
