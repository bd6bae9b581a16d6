// Settings: oneself, people, roles, mails, webhooks, the server; and who has a second factor.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { EMAIL, PASSWORD, accessible, begin, end, logIn, openAnew } from "./harness.mjs";

let server;
let browser;
let page;
let api;
before(async () => {
  ({ server, api, browser, page } = await begin());
});
after(() => end(server, browser));

const open = (tab) => openAnew(server, page, `#/settings?tab=${tab}`);

/** The code of a second factor now (RFC 6238): its secret is in base 32. */
function code(secret) {
  const bits = [...secret].map((letter) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30000)));
  const digest = createHmac("sha1", key).update(counter).digest();
  const at = digest[19] & 15;
  return String((digest.readUInt32BE(at) & 0x7fffffff) % 1000000).padStart(6, "0");
}

test("every part can be read by everybody, in light and dark", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    for (const [tab, title] of [["you", "Sessions"], ["people", "People"], ["roles", "Roles"], ["mails", "Mails about alerts"], ["webhooks", "Webhooks"], ["server", "For operators"]]) {
      await open(tab);
      await page.getByRole("heading", { name: title }).waitFor();
      await page.getByText("Loading…").first().waitFor({ state: "detached" });
      await accessible(page, `${tab}, ${colorScheme}`);
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
});

test("a token is shown once, works, and ends", async () => {
  await open("you");
  await page.getByRole("button", { name: "New token" }).click();
  await page.getByLabel("Name").fill("build machine");
  await page.getByRole("button", { name: "Make it" }).click();
  const token = await page.getByText("This is the token.").locator("code").innerText();
  const asked = () => fetch(`${server.url}/api/management/v1/useradm/users/me`, { headers: { Authorization: `Bearer ${token}` } });
  assert.equal((await asked()).status, 200);
  await page.getByRole("button", { name: "I have it" }).click();
  assert.equal(await page.getByText(token).count(), 0);
  await page.getByRole("button", { name: "Remove" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.getByText("None.").waitFor();
  assert.equal((await asked()).status, 401);
});

test("a role is made, given, and holds", async () => {
  await open("roles");
  await page.getByRole("button", { name: "New role" }).click();
  await page.getByLabel("Name", { exact: true }).fill("looks");
  await page.getByLabel(/^ReadDevices/).check();
  await accessible(page, "a new role");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("cell", { name: "looks", exact: true }).waitFor();
  await open("people");
  await page.getByRole("button", { name: "New person" }).click();
  await page.getByLabel("E-mail").fill("reader@example.com");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByLabel("looks").check();
  await page.getByRole("button", { name: "Make", exact: true }).click();
  await page.getByRole("cell", { name: "reader@example.com", exact: true }).waitFor();
  const other = await browser.page();
  await logIn(server, other, { email: "reader@example.com" });
  await other.goto(`${server.url}/#/settings?tab=people`);
  await other.getByText("Your roles do not let you see this part.").waitFor();
  await other.goto(`${server.url}/#/devices`);
  await other.getByRole("heading", { name: "Devices" }).waitFor();
});

test("a webhook with an address that is not public is refused in words", async () => {
  await open("webhooks");
  await page.getByRole("button", { name: "New webhook" }).click();
  await page.getByLabel("Address").fill("http://127.0.0.1:9/hook");
  await page.getByRole("button", { name: "Make it" }).click();
  await page.getByRole("dialog").getByRole("alert").waitFor();
  await page.keyboard.press("Escape");
  assert.deepEqual((await api("GET", "v1/iot-manager/integrations")).data, []);
});

test("who gets mails is set, and a server that sends none is said", async () => {
  const mails = async () => (await api("GET", "v1/devicemonitor/settings/global/channel/alerts/email")).data;
  await open("mails");
  await page.getByText("the server was started without --smtp").waitFor();
  await page.getByLabel("Address").fill("ops@example.com");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByRole("cell", { name: "ops@example.com", exact: true }).waitFor();
  await page.getByLabel("Send mails").check();
  await page.getByText("Mails are sent from now on.").waitFor();
  assert.deepEqual([(await mails()).enabled, (await mails()).receivers], [true, ["ops@example.com"]]);
  // What the server refuses is said in its words.
  await page.getByLabel("Address").fill("OPS@example.com");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByRole("alert").getByText("is there twice").waitFor();
  await accessible(page, "mails");
  await page.getByRole("button", { name: "Remove ops@example.com" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.getByText("Nobody gets any").waitFor();
  assert.deepEqual((await mails()).receivers, []);
});

test("a session of another browser is ended", async () => {
  const other = await browser.page();
  await logIn(server, other);
  await open("you");
  await page.reload();
  await page.getByRole("button", { name: "End it" }).first().click();
  await page.getByRole("dialog").getByRole("button", { name: "End it" }).click();
  await page.getByRole("button", { name: "End it" }).waitFor({ state: "detached" });
  await other.reload();
  await other.getByRole("button", { name: "Log in" }).waitFor();
});

test("with a second factor a login asks for its code", async () => {
  await open("you");
  await page.getByRole("button", { name: "Set it up" }).click();
  await page.getByRole("dialog").getByLabel("Password").fill("typed and left");
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Set it up" }).click();
  assert.equal(await page.getByRole("dialog").getByLabel("Password").inputValue(), "", "what was typed is gone with its window");
  const secret = (await page.getByRole("dialog").locator("pre").innerText()).replaceAll(/\s/g, "");
  await page.getByRole("dialog").getByLabel("Password").fill(PASSWORD);
  await page.getByLabel("The code that it shows").fill("000000");
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.getByRole("dialog").getByRole("alert").waitFor();
  await page.getByLabel("The code that it shows").fill(code(secret));
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.getByText("The second factor is on.").waitFor();
  const other = await browser.page();
  await other.goto(server.url);
  await other.getByLabel("E-mail").fill(EMAIL);
  await other.getByLabel("Password").fill(PASSWORD);
  await other.getByRole("button", { name: "Log in" }).click();
  const field = other.getByLabel("Code of your second factor");
  await field.waitFor();
  assert.ok(await field.evaluate((one) => one === document.activeElement), "one goes on in the field that has come");
  await field.fill("000000");
  await other.getByRole("button", { name: "Log in" }).click();
  await other.getByRole("alert").getByText("wrong").waitFor();
});
