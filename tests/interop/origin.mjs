// An origin that is Node's own HTTP/1.1 server and its HTTP/2 server, which do the same by the same paths.
// `node origin.mjs FILE` writes the ports of both to FILE, as JSON.

import crypto from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';

// Byte n of every body is n % 251.
const block = Buffer.alloc(251 * 256, Uint8Array.from({ length: 251 }, (_, at) => at));

// Requests that never end, by their names: who waits to hear that the client has gone.
const aborted = new Map();
const fate = (name) => {
  if (!aborted.has(name)) {
    let tell;
    const told = new Promise((resolve) => (tell = resolve));
    aborted.set(name, { told, tell });
  }
  return aborted.get(name);
};

async function read(req) {
  const hash = crypto.createHash('sha256');
  let length = 0;
  for await (const chunk of req) {
    hash.update(chunk);
    length += chunk.length;
  }
  return { length, sha256: hash.digest('hex') };
}

async function write(res, length) {
  let wake = () => {};
  res.on('drain', () => wake()).on('close', () => wake());
  for (let left = length; left > 0; left -= block.length) {
    if (res.destroyed) return;
    const full = !res.write(left < block.length ? block.subarray(0, left) : block);
    if (full) await new Promise((resolve) => (wake = resolve));
  }
  res.end();
}

// What answers a path: its first part is the proxies' affair.
const paths = {
  async bytes(req, res, length) {
    req.resume();
    res.setHeader('content-length', length);
    await write(res, req.method === 'HEAD' ? 0 : Number(length));
  },
  async seen(req, res) {
    const body = await read(req);
    const { method, url, headers, httpVersion, trailers } = req;
    res.setHeader('x-method', method);
    res.end(JSON.stringify({ method, url, httpVersion, headers, trailers, ...body }));
  },
  async echo(req, res) {
    for await (const chunk of req) if (!res.write(chunk)) await once(res, 'drain');
    res.end();
  },
  async trailers(req, res) {
    const { length } = await read(req);
    res.setHeader('trailer', 'x-sum');
    res.write('with trailers');
    res.addTrailers({ 'x-sum': String(length) });
    res.end();
  },
  status(req, res, code) {
    res.writeHead(Number(code)).end();
  },
  // Answers before it has read the request, and reads no more of it.
  early(req, res) {
    res.writeHead(413, { 'content-length': 3 }).end('no\n');
  },
  hints(req, res) {
    res.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
    res.end('hinted');
  },
  endless(req, res, name) {
    const timer = setInterval(() => res.write('tick '), 5);
    res.on('close', () => {
      clearInterval(timer);
      fate(name).tell();
    });
  },
  async gone(req, res, name) {
    await fate(name).told;
    res.end('gone');
  },
  // Gives the request up without an answer.
  reset(req, res, code) {
    if (res.stream) res.stream.close(Number(code));
    else req.socket.destroy();
  },
  midway(req, res) {
    res.setHeader('content-length', 100000);
    res.write(block.subarray(0, 1000), () => {
      if (res.stream) res.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
      else req.socket.destroy();
    });
  },
  // The last answer on its connection.
  goaway(req, res) {
    if (res.stream) {
      res.end('bye');
      res.stream.session.close();
    } else {
      res.setHeader('connection', 'close');
      res.end('bye');
    }
  },
};

function answer(req, res) {
  const [, , what, argument] = req.url.split('?')[0].split('/');
  const failed = (error) => {
    console.error(`${req.method} ${req.url}: ${error.stack}`);
    process.exit(1);
  };
  req.on('error', () => {});
  res.on('error', () => {});
  Promise.resolve(paths[what](req, res, argument)).catch((error) => {
    // A body that breaks off is what some clients are asked to do.
    if (!req.aborted && !req.destroyed) failed(error);
  });
}

// RFC 6455 section 4.2.2; what comes after it is echoed.
function upgrade(req, socket, head) {
  const accept = crypto.createHash('sha1').update(`${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  const lines = ['101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${accept.digest('base64')}`];
  socket.on('error', () => {});
  socket.write(`HTTP/1.1 ${lines.join('\r\n')}\r\n\r\n`);
  socket.write(head);
  if (req.url.endsWith('/hello')) socket.end('hello');
  else socket.pipe(socket);
}

const limits = { maxHeaderSize: 1 << 17, keepAliveTimeout: 60000 };
const one = http.createServer(limits, answer).on('upgrade', upgrade).listen(0, '127.0.0.1');
const two = http2.createServer({ settings: { maxHeaderListSize: 1 << 17 } }, answer).listen(0, '127.0.0.1');
await Promise.all([once(one, 'listening'), once(two, 'listening')]);
const file = process.argv[2];
fs.writeFileSync(`${file}.new`, JSON.stringify({ h1: one.address().port, h2: two.address().port }));
fs.renameSync(`${file}.new`, file);
