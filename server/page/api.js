// The management API, as everybody else has it. The page has no other way to the server.

/** An answer that is no success, or that did not come. */
export class ApiError extends Error {
  constructor(status, words, body) {
    super(words);
    this.status = status;
    this.body = body;
  }
  /** Nobody has answered: the network, or a server that starts again. */
  get isLost() {
    return this.status === 0;
  }
}

const listeners = new Set();
/** Calls `listener` with "lost", "found", "logged-out" or "logged-in" when that happens. */
export function onConnection(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
let lost = false;
let out = false;
/** Whether nobody is in: what is asked for people is refused until somebody is. */
export const isOut = () => out;
export function tell(event) {
  if (event === "lost" && lost) return;
  if (event === "found" && !lost) return;
  if (event === "lost" || event === "found") lost = event === "lost";
  if (event === "logged-out" || event === "logged-in") out = event === "logged-out";
  for (const listener of listeners) listener(event);
}

const BASE = "/api/management/";
/** Who is asked about here is nobody yet: their 401 ends nothing, and whoever hears that a login has ended asks them again. */
const ASKS_WHO = /useradm\/(auth\/|users\/me$)/;

function address(path, query) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value === undefined || value === null || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) parts.append(name, one);
  }
  const text = parts.toString();
  return BASE + path + (text ? `?${text}` : "");
}

/** Questions that are asked with a body. */
const ASKS = /\/(search|dry_run)$/;
/** Of a change whose answer has not come. */
const NOT_KNOWN = "The server does not answer: whether it was done is not known. What you have entered is still here; try again when the connection is back.";

/** An answer that takes longer does not come: what one waits for ends. Files have the time they need. */
const LONGEST_MILLISECONDS = 120000;

/** Nobody has answered, or not to the end. */
function unanswered(words) {
  tell("lost");
  return new ApiError(0, words);
}

/** What an answer that is no success is: `body` is its JSON, where it has one. */
function refused(status, path, body) {
  if (status === 401 && !ASKS_WHO.test(path)) tell("logged-out");
  return new ApiError(status, body?.error ?? `The server answers ${status}.`, body);
}

/**
 * Asks for `path` below `/api/management/`.
 *
 * `query` members that are empty are left out; `json` or `form` is the body. Answers `{data, total, etag, location}`:
 * `data` is the JSON, or the text of an answer that has none; `total` is that of a list in pages.
 */
export async function call(method, path, { query, json, form, etag, signal, headers } = {}) {
  const wanted = { "X-Requested-With": "rust-ota", ...headers };
  const late = new AbortController();
  const end = () => late.abort();
  const timer = setTimeout(end, LONGEST_MILLISECONDS);
  signal?.addEventListener("abort", end, { once: true });
  if (signal?.aborted) end();
  if (json !== undefined) wanted["Content-Type"] = "application/json";
  if (etag) wanted["If-Match"] = etag;
  let answer;
  let text;
  try {
    answer = await fetch(address(path, query), {
      method,
      headers: wanted,
      body: json === undefined ? form : JSON.stringify(json),
      credentials: "same-origin",
      cache: "no-store",
      signal: late.signal,
    });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unanswered(method === "GET" || ASKS.test(path) ? "The server does not answer." : NOT_KNOWN);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", end);
  }
  tell("found");
  let data = text;
  if ((answer.headers.get("Content-Type") ?? "").includes("json")) {
    try {
      data = text === "" ? null : JSON.parse(text);
    } catch {
      throw new ApiError(answer.status, "The server's answer is not whole.");
    }
  }
  if (!answer.ok) throw refused(answer.status, path, data);
  const total = answer.headers.get("X-Total-Count");
  return {
    data,
    total: total === null ? undefined : Number(total),
    etag: answer.headers.get("ETag") ?? undefined,
    location: answer.headers.get("Location") ?? undefined,
  };
}

export const get = (path, query, options) => call("GET", path, { query, ...options });
export const post = (path, json, options) => call("POST", path, { json, ...options });
export const put = (path, json, options) => call("PUT", path, { json, ...options });
export const patch = (path, json, options) => call("PATCH", path, { json, ...options });
export const remove = (path, query, options) => call("DELETE", path, { query, ...options });

/**
 * Sends a form and tells how much of it has gone: `progress(sentBytes, allBytes)`. `fetch` cannot tell that.
 */
export function send(method, path, form, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, BASE + path);
    request.setRequestHeader("X-Requested-With", "rust-ota");
    request.upload.onprogress = (event) => progress?.(event.loaded, event.total);
    request.onerror = () => reject(unanswered("The connection ended before everything was sent."));
    request.onabort = () => reject(new DOMException("ended", "AbortError"));
    request.onload = () => {
      tell("found");
      if (request.status < 300) return resolve({ location: request.getResponseHeader("Location") ?? undefined });
      let body;
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // Whoever stands before the server has answered in other words.
      }
      reject(refused(request.status, path, body));
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** The address of a WebSocket of the API. */
export function socket(path) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}${BASE}${path}`;
}

/** The address of something that the browser itself loads, such as a file to keep. */
export const link = (path, query) => address(path, query);

export const segment = encodeURIComponent;

/** Whether two values of the API say the same: members of an object have no order. */
export const isSame = (one, other) => ordered(one) === ordered(other);
const ordered = (value) =>
  JSON.stringify(value, (_, one) => (one && typeof one === "object" && !Array.isArray(one) ? Object.fromEntries(Object.entries(one).sort()) : one));

/**
 * Reads `path` again, and refuses to go on when what `of` makes of it is neither `began` nor `wanted` already: who sends again what
 * had no answer has changed it themselves. Else `send(etag)` changes it, if it is still what was read.
 */
export async function unlessChanged(path, { began, wanted, of, words, reload, send }) {
  const seen = await get(path);
  let { data } = seen;
  const now = of(data);
  if (isSame(now, began) || isSame(now, wanted)) {
    try {
      await send(seen.etag);
      return;
    } catch (error) {
      if (error.status !== 412) throw error;
    }
    ({ data } = await get(path));
  }
  // Who begins again begins with what is there now.
  reload?.();
  throw new ApiError(412, words, data);
}

const KEPT_BYTES = 1 << 20;
/**
 * A file, which may be large: the browser keeps it on the disk when it wants to. `progress(bytes, headers)` hears how much has come.
 */
export async function load(path, query, { signal, progress } = {}) {
  let answer;
  const parts = [];
  let waiting = [];
  try {
    answer = await fetch(address(path, query), { headers: { "X-Requested-With": "rust-ota" }, credentials: "same-origin", cache: "no-store", signal });
    if (answer.ok) {
      let sum = 0;
      let kept = 0;
      for (const reader = answer.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        sum += value.length;
        waiting.push(value);
        // What is in a Blob need not stay in memory.
        if (sum - kept >= KEPT_BYTES) {
          parts.push(new Blob(waiting));
          waiting = [];
          kept = sum;
        }
        progress?.(sum, answer.headers);
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unanswered(answer ? "The connection ended before all of it had come." : "The server does not answer.");
  }
  tell("found");
  if (!answer.ok) throw refused(answer.status, path, await answer.json().catch(() => null));
  return { blob: new Blob([...parts, ...waiting]), headers: answer.headers };
}
