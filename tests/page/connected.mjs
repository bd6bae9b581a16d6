// The side of a device on which `mender-connect` runs: a WebSocket of its own, a shell that answers some words, and files in memory.

import { EventEmitter } from "node:events";
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { request } from "node:http";

// Of a file that is not in a package, only the newest Node.js sees that it is a module.
const source = await readFile(new URL("../../server/page/msgpack.js", import.meta.url));
export const { decode, encode } = await import(`data:text/javascript;base64,${source.toString("base64")}`);

const SHELL = 1;
const FILES = 2;
const CLIENT = 4;
const CONTROL = 0xffff;
const CHUNK_BYTES = 4096;

/** One message of a WebSocket, masked as a client has to (RFC 6455, 5.3). */
function masked(opcode, payload) {
  const mask = randomBytes(4);
  const head = payload.length < 126 ? Buffer.from([0x80 | opcode, 0x80 | payload.length]) : Buffer.from([0x80 | opcode, 0x80 | 126, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([head, mask, Buffer.from(payload.map((byte, at) => byte ^ mask[at % 4]))]);
}

/** Cuts what comes into messages: `[opcode, payload]`. The server sends each in one piece. */
function* messages(state) {
  for (;;) {
    const { rest } = state;
    if (rest.length < 2) return;
    const short = rest[1] & 0x7f;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (rest.length < head) return;
    const length = short < 126 ? short : short === 126 ? rest.readUInt16BE(2) : Number(rest.readBigUInt64BE(2));
    if (rest.length < head + length) return;
    state.rest = rest.subarray(head + length);
    yield [rest[0] & 0x0f, rest.subarray(head, head + length)];
  }
}

/**
 * Connects the device. Answers an emitter of `new`, `resize`, `stop`, `pong` (with the properties), `typed` (a text), `told` (a
 * command) and `closed`; `files` are those that it has, and `print(text)`, `ping()`, `odd()` (a frame that no page understands), `end()` do what they say.
 */
export async function connected(server, device) {
  const remote = new EventEmitter();
  const socket = await new Promise((resolve, reject) => {
    const asked = request(`${server.url}/api/devices/v1/deviceconnect/connect`, {
      headers: {
        Authorization: `Bearer ${device.token}`,
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
      },
    });
    asked.on("upgrade", (_, line) => resolve(line));
    asked.on("response", (answer) => reject(new Error(`the server answers ${answer.statusCode}`)));
    asked.on("error", reject);
    asked.end();
  });
  let session = "";
  let word = "";
  const put = {};
  remote.files = new Map();
  remote.size = undefined;
  const send = (proto, typ, props, body = new Uint8Array(), sid = session) => socket.write(masked(2, encode({ hdr: { proto, typ, sid, props }, body })));
  remote.print = (text) => send(SHELL, "shell", { status: 1 }, Buffer.from(text));
  remote.ping = () => send(SHELL, "ping", { timeout: 60, status: 3 });
  remote.odd = () => {
    const frame = encode({ hdr: { proto: SHELL, typ: "shell", sid: session, props: {} }, body: null });
    // In place of the body an extension: whole for whoever passes it on, and of no use for a page.
    socket.write(masked(2, Buffer.concat([frame.subarray(0, -1), Buffer.from([0xd4, 1, 1])])));
  };
  remote.end = () => socket.destroy();

  /** What the shell does with a line. */
  const run = (line) => {
    const [name, ...rest] = line.split(" ");
    if (name === "exit") return send(SHELL, "stop", {}, Buffer.from("stopping shell"));
    if (name === "size") remote.print(`${remote.size.terminal_width}x${remote.size.terminal_height}\r\n`);
    else if (name === "colours") remote.print("\x1b[38;2;255;120;0morange\x1b[0m \x1b[1;32mgreen\x1b[0m\r\n");
    else remote.print(`you said: ${rest.length ? rest.join(" ") : name}\r\n`);
    remote.print("$ ");
  };
  const shell = ({ typ, props }, body) => {
    if (typ === "new" && remote.refuses) return send(SHELL, "new", { status: 2 }, Buffer.from(remote.refuses));
    if (typ === "new" || typ === "resize") remote.size = props;
    if (typ === "new") {
      send(SHELL, "new", { status: 1 }, Buffer.from("Shell started"));
      remote.print("$ ");
    }
    if (typ !== "shell") return remote.emit(typ, props);
    const text = Buffer.from(body).toString();
    remote.emit("typed", text);
    for (const char of text) {
      if (char !== "\r") {
        word += char;
        remote.print(char);
        continue;
      }
      remote.print("\r\n");
      run(word);
      word = "";
    }
  };
  const refuse = (typ, err) => send(FILES, "error", {}, encode({ err, msgtype: typ }));
  const file = ({ typ, props, sid }, body) => {
    const asked = body.length && typ !== "file_chunk" ? decode(body) : {};
    const known = remote.files.get(asked.path);
    if (typ === "stat") {
      if (!known) return refuse(typ, `stat ${asked.path}: no such file or directory`);
      return send(FILES, "file_info", {}, encode({ path: asked.path, size: known.length, uid: 0, gid: 0, mode: 0o644 }));
    }
    if (typ === "get_file") {
      for (let at = 0; at < known.length; at += CHUNK_BYTES) send(FILES, "file_chunk", { offset: at }, known.subarray(at, at + CHUNK_BYTES));
      return send(FILES, "file_chunk", { offset: known.length });
    }
    if (typ === "put_file") {
      put[sid] = { ...asked, parts: [], length: 0 };
      return send(FILES, "ack", { offset: 0 });
    }
    if (typ === "file_chunk") {
      const one = put[sid];
      if (body.length === 0) {
        remote.files.set(one.path, Buffer.concat(one.parts));
        remote.emit("put", one);
      } else {
        one.parts.push(Buffer.from(body));
        one.length += body.length;
      }
      return send(FILES, "ack", { offset: one.length });
    }
    return undefined;
  };
  const state = { rest: Buffer.alloc(0) };
  socket.on("data", (data) => {
    state.rest = Buffer.concat([state.rest, data]);
    for (const [opcode, payload] of messages(state)) {
      if (opcode === 9) socket.write(masked(10, payload));
      if (opcode === 8) socket.end();
      if (opcode !== 2) continue;
      const { hdr, body } = decode(new Uint8Array(payload));
      session = hdr.sid;
      if (hdr.proto === CONTROL && hdr.typ === "open") send(CONTROL, "accept", {}, encode({ version: 1, protocols: [SHELL, FILES] }));
      else if (hdr.proto === SHELL) shell(hdr, body);
      else if (hdr.proto === FILES) file(hdr, body);
      else if (hdr.proto === CLIENT) remote.emit("told", hdr.typ);
    }
  });
  socket.on("close", () => remote.emit("closed"));
  socket.on("error", () => {});
  return remote;
}
