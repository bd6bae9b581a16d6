// The list of devices: what is found, kept, exported, and done to many.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { readFile } from "node:fs/promises";
import { accessible, begin, deviceOf, end, logIn, openAnew } from "./harness.mjs";

const DEVICES = 26;
const WAITING = 4;

let server;
let browser;
let api;
const devices = [];

before(async () => {
  ({ server, api, browser } = await begin());
  for (let at = 0; at < DEVICES; at += 1) {
    const device = await deviceOf(server, {
      identity: { mac: `02:00:00:00:00:${String(at).padStart(2, "0")}` },
      inventory: { position: at, room: at % 2 ? "kitchen" : "hall", note: at === 0 ? "=1+2" : 'a "note", with all' },
    });
    if (at >= WAITING) await device.accepted();
    devices.push(device);
  }
});
after(() => end(server, browser));

/** The list at an address, when it has loaded. */
async function list(query = "", options) {
  const page = await browser.page(options);
  await logIn(server, page);
  await openAnew(server, page, `#/devices${query}`);
  await page.getByRole("heading", { name: "Devices", exact: true }).waitFor();
  return page;
}
const rows = (page) => page.locator("main tbody tr");
const found = (page, words) => page.getByRole("navigation", { name: "Pages" }).getByText(words, { exact: true }).waitFor();
const groupOf = async (device) => (await api("GET", `v1/inventory/devices/${device.id}/group`)).data.group;
const statusOf = async (device) => (await api("GET", `v2/devauth/devices/${device.id}`)).data.status;

test("a search, a filter, an order and a page stand in the address and survive a reload", async () => {
  const page = await list("?per=20");
  await found(page, `${DEVICES} devices`);
  assert.equal(await rows(page).count(), 20);
  await page.getByRole("button", { name: "Next page" }).click();
  await page.waitForFunction((count) => document.querySelectorAll("main tbody tr").length === count, DEVICES - 20);
  await page.getByLabel("Search").fill("kitchen");
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await found(page, "11 devices");
  await page.getByRole("button", { name: "Add a filter" }).click();
  await page.getByLabel("Attribute").selectOption("inventory/position");
  await page.getByLabel("Comparison").selectOption("$gt");
  await page.getByLabel("Read as").selectOption("number");
  await page.getByLabel("Value").fill("many");
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await page.getByRole("alert").getByText("“many” is no number.").waitFor();
  await page.getByLabel("Value").fill("20");
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await found(page, "3 devices");
  await page.getByRole("button", { name: "Last heard of" }).click();
  await page.waitForURL(/sort=/);
  await page.reload();
  await found(page, "3 devices");
  assert.equal(await page.getByLabel("Value").inputValue(), "20");
  assert.equal(await page.getByRole("columnheader", { name: "Last heard of" }).getAttribute("aria-sort"), "ascending");
});

test("what has no order is not said to have one", async () => {
  const page = await list();
  await found(page, `${DEVICES} devices`);
  assert.equal(await page.locator("th[aria-sort]").count(), 0);
  await page.getByRole("button", { name: "Status", exact: true }).click();
  await page.locator("th[aria-sort=ascending]").getByText("Status").waitFor();
  assert.equal(await page.locator("th[aria-sort]").count(), 1);
});

test("the tabs count the devices of each status", async () => {
  const page = await list();
  const tabs = page.getByRole("navigation", { name: "Status" });
  await tabs.getByRole("link", { name: `pending (${WAITING})` }).click();
  await found(page, `${WAITING} devices`);
  await tabs.getByRole("link", { name: "rejected" }).click();
  await page.getByText("No device has this status.").waitFor();
});

test("a filter of a list and one that a device must not have find what they say", async () => {
  const page = await list(`?f=${encodeURIComponent(JSON.stringify([["inventory/room", "$exists", false]]))}`);
  await found(page, `${WAITING} devices`);
  await page.getByLabel("Comparison").selectOption("$in");
  await page.getByLabel("Value").fill("attic, hall");
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await found(page, "11 devices");
});

test("an address that somebody has made up asks for nothing odd", async () => {
  const page = await list("?f=%5B%5B%22nothing%22%2C1%5D%2C%7B%7D%5D&page=abc&per=7&sort=x");
  await page.getByRole("alert").or(page.getByRole("navigation", { name: "Pages" })).first().waitFor();
});

test("devices that wait are accepted together, and who has two keys is named", async () => {
  const twice = devices[0].identity;
  const other = await deviceOf(server, { identity: twice });
  assert.ok(other.id);
  const page = await list("?status=pending");
  await found(page, `${WAITING} devices`);
  await page.getByLabel("Choose all on this page").check();
  await page.getByText(`${WAITING} devices chosen`).waitFor();
  await accessible(page, "devices chosen");
  await page.getByRole("button", { name: "Accept", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await page.getByText(`${WAITING - 1} devices done, 1 not.`).waitFor();
  await page.getByRole("dialog").getByText("2 of its keys wait: choose one on its page.").waitFor();
  await accessible(page, "who was not accepted");
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await found(page, "1 device");
  assert.equal(await statusOf(devices[1]), "accepted");
  assert.equal(await statusOf(devices[0]), "pending");
});

test("a second key of a device that is in is accepted by nobody who has not seen it", async () => {
  const known = devices[6];
  await deviceOf(server, { identity: known.identity });
  const page = await list(`?q=${encodeURIComponent(known.identity.mac)}`);
  await found(page, "1 device");
  await page.locator("main tbody input").check();
  await page.getByRole("button", { name: "Accept", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await page.getByText("1 device done.").waitFor();
  const { auth_sets: keys } = (await api("GET", `v2/devauth/devices/${known.id}`)).data;
  assert.deepEqual(keys.map((key) => key.status).sort(), ["accepted", "pending"]);
});

test("more devices than a window can work through are not begun with", async () => {
  const page = await list("?q=hall");
  await found(page, /devices$/);
  await page.route("**/v2/inventory/filters/search", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, headers: { ...answer.headers(), "x-total-count": "10001" } });
  });
  await page.reload();
  await page.locator("main tbody input").first().check();
  await page.getByRole("button", { name: "Choose all 10,001 that are found" }).click();
  await page.getByText("More than 10,000 at once are too many").waitFor();
  assert.equal(await page.getByRole("button", { name: "Decommission" }).count(), 0);
});

test("all that are found are put into a group and taken out of it", async () => {
  const page = await list("?q=hall&per=20&status=accepted");
  await page.getByLabel("Choose all on this page").check();
  const all = page.getByRole("button", { name: /Choose all .* found/ });
  // All of them are on this page: there is nothing more to choose.
  assert.equal(await all.count(), 0);
  await page.getByLabel("Choose all on this page").uncheck();
  await page.locator("main tbody input").first().check();
  await all.click();
  await page.getByRole("button", { name: "Put into a group" }).click();
  await page.getByRole("dialog").getByLabel("Group").fill("halls");
  await page.getByRole("dialog").getByRole("button", { name: "Put into a group" }).click();
  await page.getByText(/^11 devices done\.$/).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  assert.equal(await groupOf(devices[24]), "halls");
  await page.getByLabel("Group", { exact: true }).selectOption("halls");
  await found(page, "11 devices");
  await page.locator("main tbody input").first().check();
  await page.getByRole("button", { name: "Take out of their groups" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Take out of their groups" }).click();
  await page.getByText(/^1 device done\.$/).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await found(page, "10 devices");
});

test("devices are decommissioned only by whoever says how many", async () => {
  const gone = [await deviceOf(server, { identity: { mac: "gone-1" } }), await deviceOf(server, { identity: { mac: "gone-2" } })];
  const page = await list("?q=gone-");
  await found(page, "2 devices");
  await page.getByLabel("Choose all on this page").check();
  await page.getByRole("button", { name: "Decommission" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("To be sure").fill("3");
  await dialog.getByRole("button", { name: "Decommission" }).click();
  assert.equal((await api("GET", `v2/devauth/devices/${gone[0].id}`)).status, 200);
  await dialog.getByLabel("To be sure").fill("2");
  await dialog.getByRole("button", { name: "Decommission" }).click();
  await page.getByText("2 devices done.").waitFor();
  for (const device of gone) assert.equal((await api("GET", `v2/devauth/devices/${device.id}`)).status, 404);
});

test("rejected devices are cut off, and accepted again", async () => {
  const device = devices[5];
  const page = await list(`?q=${encodeURIComponent(device.identity.mac)}`);
  await found(page, "1 device");
  await page.locator("main tbody input").check();
  await page.getByRole("button", { name: "Reject" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Reject" }).click();
  await page.getByText("1 device done.").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  assert.equal(await statusOf(device), "rejected");
  await page.locator("main tbody input").check();
  await page.getByRole("button", { name: "Accept" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await page.getByText("1 device done.").waitFor();
  assert.equal(await statusOf(device), "accepted");
});

test("a search is kept as a dynamic group, changed, and removed", async () => {
  const page = await list(`?f=${encodeURIComponent(JSON.stringify([["inventory/room", "$eq", "kitchen"]]))}`);
  await page.getByRole("button", { name: "Keep as a dynamic group" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("kitchens");
  await dialog.getByRole("button", { name: "Keep" }).click();
  await page.getByText("Dynamic group kitchens: room is kitchen").waitFor();
  const kept = async () => (await api("GET", "v2/inventory/filters")).data;
  assert.deepEqual((await kept()).map((filter) => filter.name), ["kitchens"]);
  const before = page.getByRole("navigation", { name: "Pages" });
  await before.waitFor();
  await accessible(page, "a dynamic group");
  await page.getByRole("button", { name: "Change" }).click();
  await dialog.getByLabel("Name").fill("all kitchens");
  await dialog.getByRole("button", { name: "Save" }).click();
  await page.getByText("Dynamic group all kitchens").waitFor();
  await page.getByRole("button", { name: "Change" }).click();
  const [now] = await kept();
  await api("PUT", `v2/inventory/filters/${now.id}`, { ...now, name: "of somebody else" });
  await dialog.getByLabel("Name").fill("mine");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText("Somebody else has changed this group since you began").waitFor();
  assert.equal((await kept())[0].name, "of somebody else");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Remove" }).click();
  await dialog.getByRole("button", { name: "Remove" }).click();
  await found(page, `${DEVICES} devices`);
  assert.deepEqual(await kept(), []);
});

test("a roll-out begins with the devices that are looked at", async () => {
  const page = await list("?q=hall&per=20");
  await found(page, /devices$/);
  // A part of the fleet that is found by a text is no group.
  assert.equal(await page.getByRole("link", { name: "Roll out to this group" }).count(), 0);
  await page.locator("main tbody input").nth(0).check();
  await page.locator("main tbody input").nth(1).check();
  await page.getByRole("link", { name: "Roll out to these" }).click();
  const ids = (await page.getByLabel("Ids of the devices").inputValue()).split("\n");
  assert.equal(ids.length, 2);
  await api("PUT", `v1/inventory/devices/${devices[7].id}/group`, { group: "sevens" });
  await page.goto(`${server.url}/#/devices?group=sevens`);
  await page.getByRole("link", { name: "Roll out to this group" }).click();
  await page.getByRole("radio", { name: /group/ }).first().waitFor();
  assert.match(page.url(), /rollouts\/new\?group=sevens$/);
});

test("a device is let in before it has called", async () => {
  const { publicKey } = generateKeyPairSync("ed25519");
  const page = await list();
  await page.getByRole("button", { name: "Expect a device" }).click();
  const dialog = page.getByRole("dialog");
  await accessible(page, "a device that is expected");
  await dialog.getByLabel("Identity").fill("no identity");
  await dialog.getByLabel("Public key").fill(publicKey.export({ type: "spki", format: "pem" }));
  await dialog.getByRole("button", { name: "Accept it when it calls" }).click();
  await dialog.getByText("“no identity” is no NAME=VALUE.").waitFor();
  await dialog.getByLabel("Identity").fill("mac=expected\nserial=a=b");
  await dialog.getByRole("button", { name: "Accept it when it calls" }).click();
  await page.getByRole("link", { name: "preauthorized (1)" }).click();
  await page.getByRole("link", { name: "expected · a=b" }).click();
  await page.getByRole("button", { name: "Decommission" }).click();
  await dialog.getByRole("button", { name: "Decommission" }).click();
  await page.getByText("expected · a=b is decommissioned.").waitFor();
});

test("the columns are those that one has chosen, also in another browser", async () => {
  const page = await list();
  await page.getByRole("button", { name: "Columns" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name of an attribute").fill("posi");
  await dialog.getByRole("button", { name: "position: show" }).click();
  await dialog.getByRole("button", { name: "Group: do not show" }).click();
  await accessible(page, "columns");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("columnheader", { name: "position" }).waitFor();
  const other = await list();
  await other.getByRole("columnheader", { name: "position" }).waitFor();
  assert.equal(await other.getByRole("columnheader", { name: "Group" }).count(), 0);
});

test("columns are kept beside what somebody else writes into the settings meanwhile", async () => {
  const page = await list();
  let refused = 0;
  await page.route("**/v1/useradm/settings/me", async (route) => {
    if (route.request().method() !== "POST" || refused > 0) return route.continue();
    refused += 1;
    return route.fulfill({ status: 412, contentType: "application/json", body: JSON.stringify({ error: "the settings have been changed" }) });
  });
  await page.getByRole("button", { name: "Columns" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "As it was at first" }).click();
  await dialog.getByRole("button", { name: "Status: do not show" }).click();
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.equal(refused, 1);
  const other = await list();
  await other.getByRole("columnheader", { name: "Group" }).waitFor();
  await other.getByRole("columnheader", { name: "Status" }).waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Columns" }).click();
  await dialog.getByRole("button", { name: "As it was at first" }).click();
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.waitFor({ state: "detached" });
});

test("what is exported is whole, and no spreadsheet takes it for a formula", async () => {
  const page = await list("?status=accepted&sort=inventory%2Fposition%3Aasc");
  await page.getByRole("button", { name: "Columns" }).click();
  await page.getByRole("dialog").getByLabel("Name of an attribute").fill("note");
  await page.getByRole("dialog").getByRole("button", { name: "note: show" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await page.getByRole("columnheader", { name: "note" }).waitFor();
  await api("PUT", `v1/inventory/devices/${devices[10].id}/group`, { group: "-minus" });
  await page.getByRole("button", { name: "Export" }).click();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("dialog").getByRole("button", { name: "Export" }).click()]);
  const lines = (await readFile(await download.path(), "utf8")).trimEnd().split("\r\n");
  const accepted = (await api("GET", "v2/devauth/devices/count?status=accepted")).data.count;
  assert.equal(lines.length, accepted + 1);
  assert.ok(lines[0].startsWith("id,identity/status,"), lines[0]);
  const all = lines.join("\n");
  assert.ok(all.includes('"a ""note"", with all"'), all);
  assert.ok(!/(^|,)"?[=+@-]/m.test(all), "nothing begins as a formula");
});

test("no value of a device is a formula of a spreadsheet", async () => {
  const { field } = await csv();
  for (const [value, wanted] of [
    ["=1+2", "'=1+2"],
    ["+1", "'+1"],
    ["-1", "'-1"],
    ["@a", "'@a"],
    ["=a,b", '"\'=a,b"'],
    ["plain", "plain"],
    ['a"b', '"a""b"'],
    ["a\nb", '"a\nb"'],
    ["", ""],
  ]) {
    assert.equal(field(value), wanted);
  }
});
/** The module of the export as the browser has it. */
async function csv() {
  const page = await list();
  const path = new URL("/page/pages/device_export.js", server.url).href;
  const values = new Map();
  const field = async (value) => page.evaluate(async ([from, text]) => (await import(from)).field(text), [path, value]);
  for (const value of ["=1+2", "+1", "-1", "@a", "=a,b", "plain", 'a"b', "a\nb", ""]) values.set(value, await field(value));
  return { field: (value) => values.get(value) };
}

test("who may not list groups writes the name of one", async () => {
  const page = await browser.page();
  await logIn(server, page);
  const refuse = (route) => route.fulfill({ status: 403, contentType: "application/json", body: JSON.stringify({ error: "your roles do not allow this" }) });
  for (const path of ["v2/inventory/statistics", "v2/devauth/devices/count", "v1/inventory/groups", "v2/inventory/filters?per_page=500", "v2/inventory/filters/search"]) {
    await page.route((url) => url.href.includes(path), refuse);
  }
  await page.goto(`${server.url}/#/devices`);
  await page.getByRole("alert").getByText("your roles do not allow this").waitFor();
  await page.getByRole("textbox", { name: "Group" }).waitFor();
});

test("a table with many columns is moved in its own frame, and the page stays", async () => {
  const page = await browser.page();
  await page.route("**/v1/useradm/settings/me", (route) => route.fulfill({ json: {} }));
  await logIn(server, page);
  const columns = Array.from({ length: 20 }, (_, at) => `inventory/a_rather_long_attribute_${at}`);
  await page.evaluate((kept) => localStorage.setItem("rust_ota_device_columns", JSON.stringify(kept)), columns);
  await openAnew(server, page, "#/devices");
  await page.getByRole("columnheader", { name: "a_rather_long_attribute_19" }).waitFor();
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "it is no wider than the window");
});

test("it is usable by everybody, in light and in dark, and on a phone", async () => {
  for (const options of [{}, { colorScheme: "dark" }, { viewport: { width: 390, height: 800 } }]) {
    const page = await list("?per=20", options);
    await found(page, /devices$/);
    await page.getByRole("button", { name: "Add a filter" }).click();
    await accessible(page, JSON.stringify(options));
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "it is no wider than the window");
  }
});
