import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globals: true,
    globalSetup: "test/server.ts",
    // One server for all: the conformance suite lists every thread there is.
    fileParallelism: false,
    // Only failures take that long: the machine may be busy.
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
