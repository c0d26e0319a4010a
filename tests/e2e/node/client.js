// Scenarios for the ws client, one per run: client.js MODULES SCENARIO URL MODE. MODE is what the upstream does to
// messages: echo, or uppercase (ASCII letters, in binary messages too). Exit status 0 when all went as RFC 6455 says;
// else the reason is on stderr.
'use strict';

const assert = require('assert');
const path = require('path');
const [modules, scenario, url, mode] = process.argv.slice(2);
const WebSocket = require(path.join(modules, 'ws'));

const PATIENCE_MS = Number(process.env.PATIENCE_MS || 20000);
const upper = (b) => (b >= 97 && b <= 122 ? b - 32 : b);
const answer = (text) => (mode === 'uppercase' ? text.toUpperCase() : text);

// An open client with its messages in a queue: await c.next() is {data, binary}.
function open(protocols, options) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, protocols, { maxPayload: 32 << 20, ...options });
    const queue = [];
    const waiting = [];
    ws.on('message', (data, binary) => {
      const message = { data, binary };
      if (waiting.length) waiting.shift()(message);
      else queue.push(message);
    });
    ws.next = () => (queue.length ? Promise.resolve(queue.shift()) : new Promise((r) => waiting.push(r)));
    ws.closed = new Promise((r) => ws.on('close', (code, reason) => r({ code, reason: reason.toString() })));
    ws.on('open', () => resolve(ws));
    ws.on('error', reject);
  });
}

async function finish(ws, code) {
  ws.close(code === undefined ? 1000 : code);
  assert.strictEqual((await ws.closed).code, code === undefined ? 1000 : code);
}

const scenarios = {
  async sizes() {
    const ws = await open();
    for (const n of [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20]) {
      const bytes = Buffer.alloc(n);
      for (let i = 0; i < n; i += 997) bytes[i] = i % 251;
      ws.send(bytes);
      let got = await ws.next();
      assert.ok(got.binary, `binary of ${n} came back as text`);
      assert.ok(got.data.equals(mode === 'uppercase' ? bytes.map(upper) : bytes), `binary of ${n} differs`);
      const text = 'abcdefghij'.repeat(n / 10 + 1).slice(0, n);
      ws.send(text);
      got = await ws.next();
      assert.ok(!got.binary, `text of ${n} came back as binary`);
      assert.ok(got.data.toString() === answer(text), `text of ${n} differs`);
    }
    ws.send('grüße, κόσμε, 😀');
    assert.strictEqual((await ws.next()).data.toString().toLowerCase(), 'grüße, κόσμε, 😀');
    await finish(ws);
  },

  // A fragmented message with pings in between: the pongs come before the message is complete.
  async fragments() {
    const ws = await open();
    const order = [];
    ws.on('pong', (data) => order.push(`pong ${data}`));
    ws.on('message', () => order.push('message'));
    ws.send('one,', { fin: false });
    ws.ping('a');
    ws.send('two,', { fin: false });
    ws.send('', { fin: false });
    ws.ping('b');
    ws.send('three', { fin: true });
    const got = await ws.next();
    assert.strictEqual(got.data.toString(), answer('one,two,three'));
    // A service's answer may overtake nothing but comes from elsewhere: wait for both pongs.
    while (order.length < 3) await new Promise((r) => setTimeout(r, 5));
    assert.deepStrictEqual(order.filter((o) => o !== 'message'), ['pong a', 'pong b']);
    if (mode === 'echo') assert.strictEqual(order[2], 'message');

    const piece = Buffer.alloc(70000, 7);
    for (let i = 0; i < 5; i++) ws.send(piece, { binary: true, fin: i === 4 });
    const whole = await ws.next();
    assert.ok(whole.binary && whole.data.length === 350000 && whole.data.every((b) => b === 7));
    await finish(ws);
  },

  async pings() {
    const ws = await open();
    for (const n of [0, 1, 125]) {
      const payload = Buffer.alloc(n, n);
      const pong = new Promise((r) => ws.once('pong', r));
      ws.ping(payload);
      assert.ok((await pong).equals(payload), `pong of ${n} differs`);
    }
    await finish(ws);
  },

  // Every code a client may send comes back, and so does a close frame without one.
  async closes() {
    for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000, 4999]) {
      const ws = await open();
      ws.close(code, 'because');
      assert.strictEqual((await ws.closed).code, code);
    }
    const ws = await open();
    ws.close();
    assert.strictEqual((await ws.closed).code, 1005);
  },

  async subprotocol() {
    const ws = await open(['unknown', 'chat.v2', 'chat.v1']);
    assert.strictEqual(ws.protocol, 'chat.v2');
    await finish(ws);
  },

  // MODE is a token.
  async authentication() {
    const authorized = await open([], { headers: { Authorization: `Bearer ${mode}` } });
    const offered = await open([`tg.token.${mode}`, 'chat']);
    assert.strictEqual(offered.protocol, 'chat');
    for (const ws of [authorized, offered]) {
      ws.send('hello');
      assert.strictEqual((await ws.next()).data.toString(), 'hello');
      await finish(ws);
    }
    for (const token of [undefined, mode.slice(0, -4)])
      await assert.rejects(open([], token && { headers: { Authorization: `Bearer ${token}` } }), /401/);
  },

  async many() {
    const clients = await Promise.all(Array.from({ length: 100 }, () => open()));
    for (let round = 0; round < 3; round++) {
      clients.forEach((ws, i) => ws.send(`client ${i} round ${round}`));
      const got = await Promise.all(clients.map((ws) => ws.next()));
      got.forEach((m, i) => assert.strictEqual(m.data.toString(), answer(`client ${i} round ${round}`)));
    }
    await Promise.all(clients.map((ws) => finish(ws)));
  },
};

setTimeout(() => {
  console.error(`${scenario}: no end after ${PATIENCE_MS} ms`);
  process.exit(1);
}, PATIENCE_MS).unref();

scenarios[scenario]().then(
  () => process.exit(0),
  (e) => {
    console.error(`${scenario}: ${e.stack || e}`);
    process.exit(1);
  },
);
