// Starts the server of the npm package @durable-streams/server: node node_server.mjs PACKAGE PORT [DATA_DIR].

import { readFile } from "node:fs/promises"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"

const [root, port, dataDir] = process.argv.slice(2)
const { module } = JSON.parse(await readFile(join(root, "package.json"), "utf8"))
const { DurableStreamTestServer } = await import(pathToFileURL(resolve(root, module)).href)

const server = new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1", dataDir })
process.once("SIGTERM", () => server.stop().then(() => process.exit(0)))
await server.start()
