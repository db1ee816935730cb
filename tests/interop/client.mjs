// Node's own HTTP clients. `node client.mjs PLAIN TLS CA PREFIX` talks to an origin.mjs behind PREFIX, by addresses of a
// plain and a TLS listener, and fails at the first thing that is not as it should be.

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';

const [plain, tls, ca, prefix] = process.argv.slice(2);
const sha256 = (bytes) => crypto.createHash('sha256').update(bytes).digest('hex');
// Byte n of every body is n % 251.
const long = Buffer.alloc(4 << 20, Uint8Array.from({ length: 251 }, (_, at) => at));
const pattern = (length) => long.subarray(0, length);
const secure = { ca: fs.readFileSync(ca), servername: 'localhost' };

// The whole of an HTTP/2 answer.
async function whole(stream) {
  const seen = { hints: [], trailers: {} };
  stream.on('headers', (headers) => seen.hints.push(headers));
  stream.on('trailers', (trailers) => (seen.trailers = trailers));
  [seen.headers] = await once(stream, 'response');
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  seen.body = Buffer.concat(chunks);
  return seen;
}

const ask = (session, path, more = {}, options = { endStream: true }) =>
  session.request({ ':path': `/${prefix}/${path}`, ...more }, options);

async function post(session, path, body, { headers = {}, trailers } = {}) {
  const stream = ask(session, path, { ':method': 'POST', ...headers }, { endStream: false, waitForTrailers: !!trailers });
  if (trailers) stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end(body);
  return whole(stream);
}

async function manyStreams(session) {
  const lengths = Array.from({ length: 100 }, (_, at) => at * 100);
  const answers = await Promise.all(lengths.map((length) => whole(ask(session, `bytes/${length}`))));
  answers.forEach(({ headers, body }, at) => {
    assert.equal(headers[':status'], 200);
    assert.ok(body.equals(pattern(lengths[at])), `${lengths[at]} bytes`);
  });
}

async function pings(session) {
  const load = Promise.all(Array.from({ length: 10 }, () => whole(ask(session, 'bytes/50000'))));
  for (let at = 0; at < 5; at++) {
    const payload = crypto.randomBytes(8);
    const echoed = await new Promise((resolve, reject) =>
      session.ping(payload, (error, _, echo) => (error ? reject(error) : resolve(echo))));
    assert.ok(echoed.equals(payload));
  }
  await load;
}

async function uploads(session) {
  const body = pattern(300000);
  const { body: text } = await post(session, 'seen', body, { trailers: { 'x-check': 'done' } });
  const seen = JSON.parse(text);
  assert.deepEqual([seen.method, seen.length, seen.sha256], ['POST', body.length, sha256(body)]);
  assert.equal(seen.trailers['x-check'], 'done');
  const empty = JSON.parse((await post(session, 'seen', '', { headers: { 'content-length': '0' } })).body);
  assert.equal(empty.length, 0);
  const both = await post(session, 'echo', body);
  assert.ok(both.body.equals(body), 'both ways at once');
}

async function heads(session) {
  // RFC 9113 section 8.2.3: crumbs are one header again where a server gets them.
  const long = 'v'.repeat(20000);
  const stream = ask(session, 'seen', { cookie: ['a=1', 'b=2', 'c=3'], 'x-long': long, 'x-twice': ['1', '2'] });
  const { headers } = JSON.parse((await whole(stream)).body);
  assert.deepEqual([headers.cookie, headers['x-long'], headers['x-twice']], ['a=1; b=2; c=3', long, '1, 2']);
  const { trailers } = await post(session, 'trailers', 'four', { headers: { te: 'trailers' } });
  assert.equal(trailers['x-sum'], '4');
  const { hints, body } = await whole(ask(session, 'hints'));
  assert.deepEqual([hints.map((hint) => hint[':status']), String(body)], [[103], 'hinted']);
  const head = await whole(ask(session, 'bytes/1000', { ':method': 'HEAD' }));
  assert.deepEqual([head.headers['content-length'], head.body.length], ['1000', 0]);
}

async function aborts(session, name) {
  const streams = Array.from({ length: 10 }, (_, at) => ask(session, `endless/${name}-${at}`));
  await Promise.all(streams.map(async (stream) => {
    stream.on('error', () => {});
    await once(stream, 'data');
    stream.close(http2.constants.NGHTTP2_CANCEL);
  }));
  for (let at = 0; at < streams.length; at++) {
    assert.equal(String((await whole(ask(session, `gone/${name}-${at}`))).body), 'gone');
  }
}

async function failures(session) {
  for (const code of [http2.constants.NGHTTP2_INTERNAL_ERROR, http2.constants.NGHTTP2_CANCEL]) {
    assert.equal((await whole(ask(session, `reset/${code}`))).headers[':status'], 503);
  }
  const broken = ask(session, 'midway');
  const ended = await whole(broken).then(() => 'whole', () => 'broken');
  assert.equal(ended, 'broken', 'an answer that was cut off is not whole');
  for (let at = 0; at < 20; at++) assert.equal(String((await whole(ask(session, 'goaway'))).body), 'bye');
}

// Windows smaller than a frame, set before and while answers come.
async function smallWindows(address, options) {
  const session = http2.connect(address, { ...options, settings: { initialWindowSize: 1000 } });
  const { body } = await whole(ask(session, 'bytes/100000'));
  assert.ok(body.equals(pattern(100000)));
  const second = whole(ask(session, 'bytes/100000'));
  session.settings({ initialWindowSize: 200 });
  assert.ok((await second).body.equals(pattern(100000)));
  // A client's own GOAWAY lets what is under way end.
  const last = whole(ask(session, 'bytes/50000'));
  session.goaway();
  assert.equal((await last).body.length, 50000);
  session.destroy();
}

async function two(name, address, options) {
  const session = http2.connect(address, options);
  await once(session, 'connect');
  await manyStreams(session);
  await pings(session);
  await uploads(session);
  await heads(session);
  await aborts(session, name);
  await failures(session);
  assert.ok(!session.closed && !session.destroyed, 'all of it on one connection');
  session.close();
  await smallWindows(address, options);
}

// HTTP/1.1: an answer, and whatever came before it.
function request(client, address, path, options, body) {
  return new Promise((resolve, reject) => {
    const seen = { hints: [], continued: false };
    const sent = client.request(new URL(`/${prefix}/${path}`, address), options);
    sent.on('information', ({ statusCode }) => seen.hints.push(statusCode));
    sent.on('continue', () => {
      seen.continued = true;
      sent.end(body);
    });
    sent.on('error', reject);
    sent.on('response', async (response) => {
      try {
        const chunks = [];
        for await (const chunk of response) chunks.push(chunk);
        resolve({ ...seen, status: response.statusCode, trailers: response.trailers, body: Buffer.concat(chunks) });
      } catch (error) {
        reject(error);
      }
    });
    if (!options.headers?.expect) sent.end(body);
  });
}

async function one(name, client, address, secure) {
  const agent = new client.Agent({ keepAlive: true, maxSockets: 8 });
  const get = (path, options = {}, body) => request(client, address, path, { agent, ...secure, ...options }, body);
  const many = await Promise.all(Array.from({ length: 200 }, (_, at) => get(`bytes/${at * 50}`)));
  many.forEach(({ body }, at) => assert.ok(body.equals(pattern(at * 50))));
  const body = pattern(300000);
  const expecting = await get('seen', { method: 'PUT', headers: { expect: '100-continue' } }, body);
  assert.ok(expecting.continued);
  assert.deepEqual(JSON.parse(expecting.body).sha256, sha256(body));
  assert.equal((await get('trailers', { method: 'POST', headers: { te: 'trailers' } }, 'four')).trailers['x-sum'], '4');
  assert.deepEqual((await get('hints')).hints.filter((status) => status === 103), [103]);
  assert.equal((await get('reset/2')).status, 503);
  await assert.rejects(get('midway'), 'an answer that was cut off is not whole');
  for (let at = 0; at < 5; at++) assert.equal(String((await get('goaway')).body), 'bye');
  await left(client, address, secure, name);
  assert.equal(String((await get(`gone/${name}`)).body), 'gone');
  agent.destroy();
}

// A client that hangs up in the middle of an answer.
async function left(client, address, secure, name) {
  const sent = client.request(new URL(`/${prefix}/endless/${name}`, address), { agent: false, ...secure });
  sent.on('error', () => {});
  sent.end();
  const [response] = await once(sent, 'response');
  response.on('error', () => {});
  await once(response, 'data');
  response.destroy();
}

// A WebSocket handshake, then bytes both ways.
async function upgrade(client, address, secure) {
  const key = crypto.randomBytes(16).toString('base64');
  const headers = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': key };
  const sent = client.request(new URL(`/${prefix}/echo`, address), { agent: false, headers, ...secure });
  sent.end();
  const [response, socket, head] = await once(sent, 'upgrade');
  const accept = crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  assert.deepEqual([response.statusCode, response.headers['sec-websocket-accept']], [101, accept]);
  // Not ended before all is back: Envoy has no half-closed upgrades.
  const bytes = pattern(1 << 18);
  socket.write(bytes);
  const echoed = [head];
  for (let left = bytes.length - head.length; left > 0; left -= echoed.at(-1).length) echoed.push((await once(socket, 'data'))[0]);
  assert.ok(Buffer.concat(echoed).equals(bytes));
  socket.end();
  await once(socket, 'close');
}

await two('plain', `http://${plain}`, {});
await two('tls', `https://${tls}`, secure);
await one('one', http, `http://${plain}`, {});
await one('one-tls', https, `https://${tls}`, secure);
if (prefix === 'h1') {
  await upgrade(http, `http://${plain}`, {});
  await upgrade(https, `https://${tls}`, secure);
}
console.log('all is as it should be');
