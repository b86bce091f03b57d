// The official suite, pointed at the server whose address the environment gives. The suite's own
// command line finds no tests under vitest 4, which leaves node_modules out; called from here it does.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.CONFORMANCE_BASE_URL
if (!baseUrl) {
  throw new Error("CONFORMANCE_BASE_URL must be the server's origin, such as http://127.0.0.1:4437")
}

if (process.env.CONFORMANCE_HTTP_VERSION === "2") {
  // Node's fetch speaks HTTP/2 when its dispatcher is told to, and only its first use makes the dispatcher.
  await fetch("data:,")
  const dispatcher = Symbol.for("undici.globalDispatcher.1")
  const holder = globalThis as unknown as Record<symbol, { constructor: new (options: object) => object }>
  holder[dispatcher] = new holder[dispatcher].constructor({ allowH2: true }) as never
}

runConformanceTests({ baseUrl })
