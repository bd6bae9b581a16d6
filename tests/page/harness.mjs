// A server of its own in an empty folder, a browser, and devices that speak for themselves.
//
// What runs is the program named by ROTA_SERVER; CHROMIUM names another browser than Debian's. With ROTA_PAGE the page is that
// folder's and not the program's, for whoever changes it.

import { spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { generateKeyPairSync, sign } from "node:crypto";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

// The packages stand in ROTA_NODE_MODULES, away from the sources.
const require = createRequire(process.env.ROTA_NODE_MODULES ? join(process.env.ROTA_NODE_MODULES, "x") : import.meta.url);
const { chromium } = require("playwright-core");
const AXE = require.resolve("axe-core/axe.min.js");

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const SERVER = process.env.ROTA_SERVER ?? join(ROOT, "target/debug/rust-ota-server");
const ARTIFACT = process.env.ROTA_ARTIFACT ?? join(ROOT, "target/debug/rust-ota-artifact");
export const PASSWORD = "a long enough password";
export const EMAIL = "first@example.com";

/** Runs `SERVER serve`; answers when it listens. */
export async function startServer({ data, port = 0, options = [] } = {}) {
  const folder = data ?? (await mkdtemp(join(tmpdir(), "rota-page-")));
  const page = process.env.ROTA_PAGE ? ["--page", process.env.ROTA_PAGE] : [];
  const child = spawn(SERVER, ["serve", "--data", folder, "--listen", `127.0.0.1:${port}`, ...page, ...options], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log = [];
  const server = { folder, log, child, url: undefined, link: undefined };
  const ended = new Promise((resolve) => child.once("exit", resolve));
  createInterface({ input: child.stderr }).on("line", (line) => log.push(line));
  await new Promise((resolve, reject) => {
    ended.then(() => reject(new Error(`the server ended: ${log.join("\n")}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const link = line.match(/https?:\/\/\S+#\/start\/\S+/);
      if (link) server.link = link[0];
      const listening = line.match(/^listening on (\S+)/);
      if (listening) {
        server.url = listening[1];
        // The link for the first user is in the same piece of text, where there is one.
        setImmediate(resolve);
      }
    });
  });
  server.token = (await readFile(join(folder, "management-token"), "utf8")).trim();
  server.port = Number(new URL(server.url).port);
  server.stop = async (signal = "SIGTERM") => {
    child.kill(signal);
    await ended;
  };
  server.remove = async () => {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  };
  return server;
}

/** The management API with the management token: `api("GET", "v2/devauth/devices")`. */
export const apiOf = (server) => async (method, path, json, headers = {}) => {
  const answer = await fetch(`${server.url}/api/management/${path}`, {
    method,
    headers: { Authorization: `Bearer ${server.token}`, ...(json === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
    body: json === undefined ? undefined : JSON.stringify(json),
  });
  const text = await answer.text();
  let data = text;
  try {
    data = JSON.parse(text);
  } catch {
    // A text, or nothing.
  }
  return { status: answer.status, data, headers: answer.headers };
};

/** A device with a key. `device.accepted()` has it let in, `device.update(status…)` carries a deployment out. */
export async function deviceOf(server, { identity, type = "testbox", artifactName = "release-1", inventory = {} }) {
  const api = apiOf(server);
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const pem = publicKey.export({ type: "spki", format: "pem" });
  const device = { identity, id: undefined, token: undefined, publicKey };
  const ask = async (method, path, json) => {
    const answer = await fetch(`${server.url}/api/devices/${path}`, {
      method,
      headers: { Authorization: `Bearer ${device.token}`, "Content-Type": "application/json" },
      body: json === undefined ? undefined : JSON.stringify(json),
    });
    const text = await answer.text();
    return { status: answer.status, data: text && (answer.headers.get("Content-Type") ?? "").includes("json") ? JSON.parse(text) : text };
  };
  device.ask = ask;
  device.authenticate = async () => {
    const body = JSON.stringify({ id_data: JSON.stringify(identity), pubkey: pem });
    const answer = await fetch(`${server.url}/api/devices/v1/authentication/auth_requests`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-MEN-Signature": sign(null, Buffer.from(body), privateKey).toString("base64") },
      body,
    });
    if (answer.status === 200) device.token = await answer.text();
    return answer.status;
  };
  device.report = () =>
    ask("PUT", "v1/inventory/device/attributes", Object.entries({ artifact_name: artifactName, device_type: type, ...inventory }).map(([name, value]) => ({ name, value })));
  device.next = () => ask("POST", "v2/deployments/device/deployments/next", { device_provides: { artifact_name: artifactName, device_type: type } });
  device.says = (deployment, status, substate) => ask("PUT", `v1/deployments/device/deployments/${deployment}/status`, { status, substate });
  device.logs = (deployment, ...lines) =>
    ask("PUT", `v1/deployments/device/deployments/${deployment}/log`, {
      messages: lines.map((message) => ({ timestamp: new Date().toISOString(), level: "error", message })),
    });
  device.find = async () => {
    const found = await api("POST", "v2/devauth/devices/search?per_page=500", {});
    device.id = found.data.find((one) => JSON.stringify(one.identity_data) === JSON.stringify(identity))?.id;
    return device.id;
  };
  device.accepted = async () => {
    await device.find();
    const known = await api("GET", `v2/devauth/devices/${device.id}`);
    await api("PUT", `v2/devauth/devices/${device.id}/auth/${known.data.auth_sets[0].id}/status`, { status: "accepted" });
    assert.equal(await device.authenticate(), 200);
    await device.report();
    return device;
  };
  assert.equal(await device.authenticate(), 401, "it waits for a person");
  await device.find();
  return device;
}

/** An artifact of some kilobytes; answers its path. */
export async function artifact(server, name, { type = "testbox" } = {}) {
  const path = join(server.folder, `${name}.mender`);
  const payload = join(server.folder, `${name}.txt`);
  const { writeFile } = await import("node:fs/promises");
  await writeFile(payload, `what ${name} brings\n`.repeat(200));
  const child = spawn(ARTIFACT, ["write", "module-image", "-T", "single-file", "-n", name, "-t", type, "-f", payload, "-o", path], { stdio: "inherit" });
  const code = await new Promise((resolve) => child.once("exit", resolve));
  assert.equal(code, 0, "the host tool writes the artifact");
  return path;
}

/** Uploads it without the page. */
export async function upload(server, path) {
  const form = new FormData();
  const parts = [];
  for await (const part of createReadStream(path)) parts.push(part);
  form.append("artifact", new Blob(parts), "artifact.mender");
  const answer = await fetch(`${server.url}/api/management/v1/deployments/artifacts`, {
    method: "POST",
    headers: { Authorization: `Bearer ${server.token}` },
    body: form,
  });
  assert.equal(answer.status, 201, await answer.text());
}

/**
 * A browser whose pages fail the test when something is written to the console as an error, and whose requests may go
 * to the server only. `browser.page()` gives a new person's page.
 */
export async function startBrowser(server) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const complaints = [];
  return {
    complaints,
    async page(options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true, ...options });
      const page = await context.newPage();
      page.on("console", (message) => {
        // The browser itself writes a line for each answer that is no success; those are part of what is tested.
        if (message.type() === "error" && !/^(Failed to load resource|WebSocket connection to .* failed)/.test(message.text())) complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("request", (request) => {
        const url = new URL(request.url());
        if (url.protocol.startsWith("http") && url.origin !== server.url) complaints.push(`asks ${url.origin}`);
      });
      return page;
    },
    close: () => browser.close(),
  };
}

/** Makes the first user by the link of a new server, and is in. */
export async function firstUser(server, page, { email = EMAIL, password = PASSWORD } = {}) {
  assert.ok(server.link, `a new server prints a link: ${server.log.join("\n")}`);
  await page.goto(server.link);
  await page.getByLabel("E-mail").fill(email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Begin" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

export async function logIn(server, page, { email = EMAIL, password = PASSWORD } = {}) {
  await page.goto(server.url);
  await page.getByLabel("E-mail").fill(email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

/** Opens `hash` of the page as if it were opened anew: an address that is there already would load nothing. */
export async function openAnew(server, page, hash) {
  await page.goto("about:blank");
  await page.goto(`${server.url}/${hash}`);
}

/** The link of the menu that leads to a place. */
export const place = (page, name) => page.getByRole("navigation", { name: "Places" }).getByRole("link", { name });

/** Makes a roll-out without the page; answers its id. */
export async function rollOut(api, name, fields) {
  const answer = await api("POST", "v2/deployments/deployments", { name, artifact_name: "release-2", ...fields });
  assert.equal(answer.status, 201, JSON.stringify(answer.data));
  return answer.headers.get("Location").split("/").at(-1);
}

/** What a file of tests begins with: a server of its own, its API, a browser, and the page of its first user. `end` ends it. */
export async function begin(options) {
  const server = await startServer(options);
  let browser;
  try {
    browser = await startBrowser(server);
    const page = await browser.page();
    await firstUser(server, page);
    return { server, api: apiOf(server), browser, page };
  } catch (error) {
    await browser?.close();
    await server.remove();
    throw error;
  }
}

/** Keeps what a page asks of `path` waiting until the function is called that this answers. */
export async function held(page, path) {
  let go;
  const gone = new Promise((resolve) => (go = resolve));
  await page.route(path, async (route) => {
    await gone;
    await route.fallback();
  });
  return go;
}

/** Ends what a file of tests has begun; nothing may have been written to the browser's console as an error. */
export async function end(server, browser) {
  await browser?.close();
  await server?.remove();
  if (browser) assert.deepEqual(browser.complaints, [], "the console of the browser stays empty");
}

/** What axe finds on the page as it is now: nothing, or the test fails with it. */
export async function accessible(page, what) {
  // By the protocol of the browser's own tools: the page itself may run no script that is not its own.
  await page.evaluate(await readFile(AXE, "utf8"));
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const said = found.violations.map((one) => `${one.id}: ${one.help} (${one.nodes.map((node) => node.target.join(" ")).join(", ")})`);
  assert.deepEqual(said, [], what);
}
