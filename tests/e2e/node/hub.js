// Clients of the hub: hub.js MODULES URL. Subscribers by name and by wildcard and a few publishers, all in one process;
// every subscriber hears all messages of each publisher once and in order, and all of them in the same order.
'use strict';

const assert = require('assert');
const path = require('path');
const [modules, url] = process.argv.slice(2);
const WebSocket = require(path.join(modules, 'ws'));

const PATIENCE_MS = Number(process.env.PATIENCE_MS || 20000);
const SUBSCRIBERS = 24, PUBLISHERS = 4, MESSAGES = 250;

function open() {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url);
    ws.heard = [];
    ws.answers = new Map();
    ws.on('message', (data, binary) => {
      assert.ok(!binary);
      const m = JSON.parse(data.toString());
      if (m.type === 'message') {
        ws.heard.push(m);
        if (ws.enough && ws.heard.length === ws.enough.n) ws.enough.resolve();
      } else {
        ws.answers.get(m.id)(m);
      }
    });
    ws.ask = (request) => new Promise((r) => {
      ws.answers.set(request.id, r);
      ws.send(JSON.stringify(request));
    });
    ws.hear = (n) => new Promise((r) => {
      if (ws.heard.length >= n) r();
      else ws.enough = { n, resolve: r };
    });
    ws.on('open', () => resolve(ws));
    ws.on('error', reject);
  });
}

async function main() {
  const all = await Promise.all(Array.from({ length: SUBSCRIBERS + PUBLISHERS }, open));
  const subscribers = all.slice(0, SUBSCRIBERS), publishers = all.slice(SUBSCRIBERS);
  await Promise.all(subscribers.map(async (ws, i) => {
    // By name, by wildcard, or by both.
    for (const topic of i % 3 === 2 ? ['node/grüße', 'node/*'] : [i % 3 ? 'node/*' : 'node/grüße'])
      assert.strictEqual((await ws.ask({ type: 'subscribe', topic, id: topic })).type, 'ack');
  }));
  const total = PUBLISHERS * MESSAGES;
  await Promise.all(publishers.map(async (ws, p) => {
    for (let n = 0; n < MESSAGES; n++)
      ws.send(JSON.stringify({ type: 'publish', topic: 'node/grüße', data: { p, n, '😀': [null, 1.5] } }));
    assert.strictEqual((await ws.ask({ type: 'presence', topic: 'node/grüße', id: 1 })).type, 'presence');
  }));
  await Promise.all(subscribers.map((ws) => ws.hear(total)));
  const order = subscribers[0].heard.map((m) => `${m.data.p}.${m.data.n}`).join();
  for (const ws of subscribers) {
    const next = new Array(PUBLISHERS).fill(0);
    for (const m of ws.heard) {
      assert.deepStrictEqual(m, { type: 'message', topic: 'node/grüße', data: { p: m.data.p, n: m.data.n, '😀': [null, 1.5] } });
      assert.strictEqual(m.data.n, next[m.data.p]++);
    }
    assert.deepStrictEqual(next, new Array(PUBLISHERS).fill(MESSAGES));
    assert.strictEqual(ws.heard.map((m) => `${m.data.p}.${m.data.n}`).join(), order);
  }
  assert.strictEqual((await publishers[0].ask({ type: 'publish', topic: 'node/*', data: 1, id: 2 })).code, 'bad_topic');
  all.forEach((ws) => ws.close());
}

const timer = setTimeout(() => { console.error('out of patience'); process.exit(2); }, PATIENCE_MS);
main().then(() => clearTimeout(timer), (e) => { console.error(e); process.exit(1); });
