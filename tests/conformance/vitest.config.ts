import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["conformance.test.ts"],
    // The suite itself waits up to 20 s in its long-poll tests; a busy machine gets three times that.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // One server, one client process: tests that count what they read mustn't share the machine's cores
    // with each other.
    fileParallelism: false,
  },
})
