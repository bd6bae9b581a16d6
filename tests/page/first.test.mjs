// From an empty folder to a user who is in, and what protects that.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { EMAIL, PASSWORD, accessible, apiOf, deviceOf, end, firstUser, logIn, place, startBrowser, startServer } from "./harness.mjs";

let server;
let browser;
before(async () => {
  server = await startServer();
  browser = await startBrowser(server);
});
after(() => end(server, browser));

test("the link makes the first user, once", async () => {
  const page = await browser.page();
  await page.goto(server.url);
  await page.getByRole("heading", { name: "Welcome" }).waitFor();
  await accessible(page, "welcome");
  await firstUser(server, page);
  await page.getByText("First steps").waitFor();
  await accessible(page, "overview");
  const other = await browser.page();
  await other.goto(server.link);
  await other.getByRole("button", { name: "Log in" }).waitFor();
});

test("a login goes through the page and ends with it", async () => {
  const page = await browser.page();
  await page.goto(server.url);
  await page.getByLabel("E-mail").fill(EMAIL);
  await page.getByLabel("Password").fill("not the password");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").getByText("wrong").waitFor();
  await accessible(page, "login");
  await logIn(server, page);
  // No script can read the session.
  assert.equal(await page.evaluate(() => document.cookie), "");
  await page.reload();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("button", { name: "Log in" }).waitFor();
  await page.reload();
  await page.getByRole("button", { name: "Log in" }).waitFor();
});

test("a page of somebody else can change nothing", async () => {
  const page = await browser.page();
  await logIn(server, page, { email: EMAIL, password: PASSWORD });
  const status = await page.evaluate(async () => {
    const answer = await fetch("/api/management/v1/useradm/settings", { method: "POST", body: "{}", credentials: "same-origin" });
    return answer.status;
  });
  assert.equal(status, 403, "without the header that only our page can send");
});

test("a lost connection is said, and ends by itself", async () => {
  const page = await browser.page();
  await logIn(server, page);
  const { folder, port, link } = server;
  await server.stop();
  await page.getByText("The server does not answer. What is shown may be old").waitFor();
  const next = await startServer({ data: folder, port });
  Object.assign(server, next, { link });
  await page.getByText("The server does not answer. What is shown may be old").waitFor({ state: "detached" });
  await page.getByRole("heading", { name: "Overview" }).waitFor();
});

test("what a device says of itself is shown as text", async () => {
  const hostile = '<img src=x onerror="document.title=\'taken\'">';
  await deviceOf(server, { identity: { mac: hostile, "<b>bold</b>": "javascript:alert(1)" } });
  const page = await browser.page();
  await logIn(server, page);
  await place(page, /^Devices/).click();
  await page.getByText(hostile).first().waitFor();
  assert.notEqual(await page.title(), "taken");
  assert.equal(await page.locator("main img").count(), 0);
  const api = apiOf(server);
  assert.equal((await api("GET", "v2/devauth/devices/count?status=pending")).data.count, 1);
});

test("the first load is small", async () => {
  const page = await browser.page();
  const sizes = [];
  page.on("requestfinished", (request) => {
    if (!request.url().includes("/api/")) sizes.push(request.sizes());
  });
  await logIn(server, page);
  const bytes = (await Promise.all(sizes)).reduce((sum, one) => sum + one.responseBodySize + one.responseHeadersSize, 0);
  console.log(`first load: ${bytes} bytes`);
  assert.ok(bytes > 0 && bytes <= 150 * 1024, `${bytes} bytes`);
});
