// An echo server as the npm package `ws` meets it. usage: node clients.cjs HOST PORT
"use strict";
const assert = require("node:assert");
const { once } = require("node:events");
const WebSocket = require("ws");

const [host, port] = process.argv.slice(2);
const url = `ws://${host}:${port}/`;

async function echo(client, message) {
  const binary = typeof message !== "string";
  client.send(message, { binary });
  const [data, isBinary] = await once(client, "message");
  assert.strictEqual(isBinary, binary);
  assert.ok(Buffer.from(message).equals(data), "another message came back");
}

async function main() {
  let count = 0;
  for (const none of [false, true]) {
    for (const bits of [undefined, 9, 15]) {
      for (const on of [false, true]) {
        const perMessageDeflate = on && {
          serverNoContextTakeover: none, clientNoContextTakeover: none,
          serverMaxWindowBits: bits, clientMaxWindowBits: bits ?? true, threshold: 0,
        };
        const client = new WebSocket(url, { perMessageDeflate });
        await once(client, "open");
        assert.strictEqual(client.extensions.includes("permessage-deflate"), on);
        for (const message of ["", "a", "€😀".repeat(9000), "x".repeat(70000), Buffer.alloc(1 << 20, 7)]) {
          await echo(client, message);
        }
        client.ping("p");
        const [pong] = await once(client, "pong");
        assert.strictEqual(pong.toString(), "p");
        client.send("frag", { fin: false });
        client.send("mented", { fin: true });
        const [whole] = await once(client, "message");
        assert.strictEqual(whole.toString(), "fragmented");
        client.close(4000 + count, "bye");
        const [code] = await once(client, "close");
        assert.strictEqual(code, 4000 + count);
        count += 1;
      }
    }
  }
  console.log(`ws ${require("ws/package.json").version}: ${count} sets of parameters`);
}

main().catch((error) => { console.error(error); process.exit(1); });
