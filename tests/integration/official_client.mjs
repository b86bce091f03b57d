// Creates, appends to, reads and follows streams with the official TypeScript client, as an application would.
// Usage: node official_client.mjs BASE_URL; prints one JSON line with what it has seen.

import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"

// The client is installed beside the conformance suite.
const require = createRequire(new URL("../conformance/package.json", import.meta.url))
const { DurableStream, IdempotentProducer, stream } = await import(
  pathToFileURL(require.resolve("@durable-streams/client")).href
)

const base = process.argv[2]

async function follow(url, live, count) {
  const items = []
  const response = await stream({ url, offset: "-1", live })
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${live}: only ${items.length} of ${count}`)), 20_000)
    response.subscribeJson(async (batch) => {
      items.push(...batch.items)
      if (items.length >= count) {
        clearTimeout(timer)
        resolve()
      }
    })
  })
  response.cancel?.()
  return items
}

const url = `${base}/v1/stream/typescript/orders`
const handle = await DurableStream.create({ url, contentType: "application/json" })
await handle.append(JSON.stringify({ n: 0 }))

const following = [follow(url, "long-poll", 21), follow(url, "sse", 21)]
const producer = new IdempotentProducer(handle, "typescript", { autoClaim: true })
for (let n = 1; n <= 20; n++) producer.append(JSON.stringify({ n }))
await producer.flush()
const [polled, pushed] = await Promise.all(following)

const text = await DurableStream.create({ url: `${base}/v1/stream/typescript/text`, contentType: "text/plain" })
await text.append("grüße ")
await text.append("🌍")
const read = await (await stream({ url: text.url, live: false })).text()
const head = await text.head()
await text.close()
await handle.delete()
const gone = await fetch(url, { method: "HEAD" })

console.log(JSON.stringify({ polled, pushed, read, contentType: head.contentType, gone: gone.status }))
process.exit(0)
