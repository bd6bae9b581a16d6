// What people have done, and what a terminal showed them.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { PASSWORD, accessible, begin, deviceOf, end, logIn, openAnew, place } from "./harness.mjs";
import { connected } from "./connected.mjs";

let server;
let browser;
let page;
let api;
let device;
before(async () => {
  ({ server, api, browser, page } = await begin({ options: ["--record-terminals"] }));
  device = await deviceOf(server, { identity: { mac: "02:00:00:00:00:01" } });
  await device.accepted();
});
after(() => end(server, browser));

test("a terminal is seen again from the audit log, as text", async () => {
  const remote = await connected(server, device);
  await openAnew(server, page, `#/devices/${device.id}?tab=terminal`);
  const began = once(remote, "new");
  await page.getByRole("button", { name: "Open a terminal" }).click();
  await began;
  const screen = page.locator(".xterm-rows");
  await screen.getByText("$").waitFor();
  await page.keyboard.type("hello\r");
  await screen.getByText("you said: hello").waitFor();
  await page.keyboard.type("colours\r");
  await screen.getByText("orange", { exact: true }).waitFor();
  remote.print("<b>no markup</b>\r\n");
  await screen.getByText("<b>no markup</b>").waitFor();
  await page.keyboard.type("exit\r");
  await page.getByText("The shell has ended.").waitFor();
  remote.end();
  await openAnew(server, page, "#/audit");
  await page.getByLabel("What it was done to").selectOption("device");
  const row = page.getByRole("row").filter({ hasText: "open terminal" });
  await row.getByRole("button", { name: "Watch the terminal" }).click();
  const dialog = page.getByRole("dialog", { name: "What the terminal showed" });
  await dialog.getByText("you said: hello").waitFor();
  const text = await dialog.locator("pre").innerText();
  assert.match(text, /orange green/, "colours and movements of the cursor are left out");
  assert.ok(text.includes("<b>no markup</b>"));
  assert.ok(!text.includes("\x1b"));
  await accessible(page, "a recorded terminal");
  await dialog.getByRole("button", { name: "Close" }).click();
  await page.reload();
  await page.getByRole("row").filter({ hasText: "play terminal" }).getByRole("button", { name: "Watch the terminal" }).click();
  await dialog.getByText("you said: hello").waitFor();
});

test("a terminal of which nothing is recorded is said to have none", async () => {
  const { data } = await api("GET", "v1/auditlogs/logs?object_type=device");
  const entry = data.find((one) => one.action === "open_terminal");
  const session = "00000000-0000-4000-8000-000000000000";
  await page.route("**/v1/auditlogs/logs?**", (route) => route.fulfill({ json: [{ ...entry, meta: { session_id: [session] } }], headers: { "X-Total-Count": "1" } }));
  await openAnew(server, page, "#/audit");
  await page.getByRole("button", { name: "Watch the terminal" }).click();
  await page.getByText("There is no recording of this terminal").waitFor();
  await page.unrouteAll({ behavior: "wait" });
});

test("who may see the log and no terminal is not offered it", async () => {
  assert.equal((await api("POST", "v2/useradm/roles", { name: "auditor", description: "", permission_sets_with_scope: [{ name: "ReadAuditLogs" }] })).status, 201);
  assert.equal((await api("POST", "v1/useradm/users", { email: "auditor@example.com", password: PASSWORD, roles: ["auditor"] })).status, 201);
  const other = await browser.page();
  await logIn(server, other, { email: "auditor@example.com" });
  await place(other, "Audit log").click();
  await other.getByText("open terminal").first().waitFor();
  assert.equal(await other.getByRole("button", { name: "Watch the terminal" }).count(), 0);
  await accessible(other, "the log of an auditor");
});
