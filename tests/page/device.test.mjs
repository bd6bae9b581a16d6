// One device: what is shown of it, what is changed, and the work on it through its connection.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { accessible, artifact, begin, deviceOf, end, logIn, openAnew, upload } from "./harness.mjs";
import { connected } from "./connected.mjs";

const HOSTILE = "<img src=x onerror=\"document.title='taken'\">";

let server;
let browser;
let api;
let device;

before(async () => {
  ({ server, api, browser } = await begin());
  device = await deviceOf(server, { identity: { mac: "02:00:00:00:00:01" }, inventory: { hostname: "kitchen", note: HOSTILE } });
  await device.accepted();
});
after(() => end(server, browser));

async function open(tab = "overview", { of = device, ...options } = {}) {
  const page = await browser.page(options);
  await logIn(server, page);
  await openAnew(server, page, `#/devices/${of.id}?tab=${tab}`);
  await page.getByRole("navigation", { name: "Parts" }).waitFor();
  return page;
}
const card = (page, name) => page.getByRole("region", { name, exact: true });

test("a device that is not there is said in words", async () => {
  const page = await browser.page();
  await logIn(server, page);
  await page.goto(`${server.url}/#/devices/nobody`);
  await page.getByRole("heading", { name: "There is no such device" }).waitFor();
});

test("a key is accepted, refused and forgotten on the page of its device", async () => {
  const other = await deviceOf(server, { identity: { mac: "02:00:00:00:00:02" } });
  const page = await open("overview", { of: other });
  const keys = card(page, "Keys");
  // By its digest a person knows the key that the device has.
  const digest = createHash("sha256").update(other.publicKey.export({ type: "spki", format: "der" })).digest("hex");
  await keys.getByText(digest.slice(0, 16), { exact: true }).waitFor();
  await keys.getByRole("button", { name: "show" }).click();
  await page.getByRole("dialog").getByText(digest, { exact: true }).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await keys.getByRole("button", { name: "Accept" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await keys.getByText("accepted", { exact: true }).waitFor();
  assert.equal(await other.authenticate(), 200);
  await keys.getByRole("button", { name: "Reject" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Reject" }).click();
  await keys.getByText("rejected", { exact: true }).waitFor();
  await keys.getByRole("button", { name: "Dismiss" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Dismiss" }).click();
  await page.getByText("The device has no key any more").or(page.getByText("There is no such device")).waitFor();
});

test("who changes tags that somebody else has changed meanwhile is told, and nothing is lost", async () => {
  const page = await open();
  const tags = card(page, "Tags");
  await tags.getByRole("button", { name: "Change" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("name");
  await dialog.getByLabel("Value").fill("Kitchen");
  await accessible(page, "the tags");
  await dialog.getByRole("button", { name: "Save" }).click();
  await page.getByRole("heading", { name: "Kitchen", level: 1 }).waitFor();
  await tags.getByRole("button", { name: "Change" }).click();
  const path = `v1/inventory/devices/${device.id}/tags`;
  await api("PUT", path, [{ name: "name", value: "of somebody else" }]);
  await dialog.getByLabel("Value").fill("mine");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText("Somebody else has changed the tags since you began").waitFor();
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await tags.getByText("of somebody else").waitFor();
  await api("PUT", path, []);
});

test("a device is put into a group and taken out of it", async () => {
  const page = await open();
  const group = card(page, "Group");
  await group.getByRole("button", { name: "Put into a group" }).click();
  await page.getByRole("dialog").getByLabel("Group").fill("homes");
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await group.getByRole("link", { name: "homes" }).waitFor();
  await group.getByRole("button", { name: "Take out" }).click();
  await group.getByText("It is in none.").waitFor();
  assert.equal((await api("GET", `v1/inventory/devices/${device.id}/group`)).data.group, null);
});

test("the inventory is text, and is searched", async () => {
  const page = await open("inventory");
  await page.getByText(HOSTILE).waitFor();
  assert.notEqual(await page.title(), "taken");
  await accessible(page, "the inventory");
  await page.getByLabel("Search").fill("KITCH");
  await page.getByText("1 attribute;").waitFor();
  await page.reload();
  await page.getByText("1 attribute;").waitFor();
  await page.getByLabel("Search").fill("no such thing");
  await page.getByText("Nothing of this device has").waitFor();
});

test("updates are shown with their logs, and why one has not come", async () => {
  await upload(server, await artifact(server, "release-2"));
  const made = await api("POST", "v1/deployments/deployments", { name: "first try", artifact_name: "release-2", devices: [device.id] });
  const deployment = made.headers.get("Location").split("/").pop();
  const page = await open();
  await card(page, "Why it has not got its update").getByRole("link", { name: "first try" }).waitFor();
  await accessible(page, "the overview");
  assert.equal((await device.next()).status, 200);
  await device.says(deployment, "downloading");
  await device.logs(deployment, "could not write", "<script>alert(1)</script>");
  await device.says(deployment, "failure");
  await page.getByRole("link", { name: "Updates" }).click();
  const row = page.getByRole("row").filter({ hasText: "first try" });
  await row.getByText("failure").waitFor();
  await accessible(page, "the updates");
  await row.getByRole("button", { name: "Log" }).click();
  await page.getByRole("dialog").getByText("<script>alert(1)</script>").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await page.getByLabel("What became of it").selectOption("success");
  await page.getByText("None of its updates is like that.").waitFor();
  await page.getByLabel("What became of it").selectOption("");
  await page.getByRole("button", { name: "Clear the history" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Clear" }).click();
  await page.getByText("It has not been part of a roll-out yet.").waitFor();
});

test("an update that goes on is ended for this device", async () => {
  const made = await api("POST", "v1/deployments/deployments", { name: "second try", artifact_name: "release-2", devices: [device.id] });
  const page = await open("updates");
  const row = page.getByRole("row").filter({ hasText: "second try" });
  await row.getByRole("button", { name: "End" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "End" }).click();
  await row.getByText("aborted").waitFor();
  const deployment = made.headers.get("Location").split("/").pop();
  const shown = await api("GET", `v1/deployments/deployments/${deployment}`);
  assert.equal(shown.data.status, "finished");
});

test("a configuration is changed and deployed, and shown beside what the device says", async () => {
  await device.ask("PUT", "v1/deviceconfig/configuration", { timezone: "UTC", led: "off" });
  const page = await open("configuration");
  await page.getByRole("row").filter({ hasText: "led" }).getByText("not set here").waitFor();
  await page.getByRole("button", { name: "Change" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("led");
  await dialog.getByLabel("Value").fill("off");
  await accessible(page, "the configuration");
  await dialog.getByRole("button", { name: "Save and deploy" }).click();
  await page.getByRole("row").filter({ hasText: "led" }).getByText("same").waitFor();
  await page.getByRole("link", { name: "Its last roll-out" }).waitFor();
  const path = `v1/deviceconfig/configurations/device/${device.id}`;
  assert.deepEqual((await api("GET", path)).data.configured, { led: "off" });
  await page.getByRole("button", { name: "Change" }).click();
  await api("PUT", path, { led: "blue" });
  await dialog.getByLabel("Value").fill("green");
  await dialog.getByRole("button", { name: "Save and deploy" }).click();
  await dialog.getByText("Somebody else has changed the configuration since you began").waitFor();
  assert.deepEqual((await api("GET", path)).data.configured, { led: "blue" });
});

test("alerts and monitors are shown", async () => {
  const subject = { name: "/", type: "diskusage", status: "full", details: { used: "99%" } };
  await device.ask("PUT", "v1/devicemonitor/config", [{ name: "disk", status: "enabled", type: "diskusage" }]);
  await device.ask("POST", "v1/devicemonitor/alert", [{ name: "disk is full", level: "CRITICAL", subject, timestamp: new Date().toISOString() }]);
  const page = await open("alerts");
  await card(page, "How it is now").getByText("disk is full").waitFor();
  await card(page, "Monitors").getByText("enabled").waitFor();
  await accessible(page, "the alerts");
});

test("what needs a connection says that there is none", async () => {
  for (const tab of ["terminal", "files"]) {
    const page = await open(tab);
    await page.getByText("This device is not connected").waitFor();
    assert.ok(await page.getByRole("button", { name: "Check for update" }).isDisabled());
    await accessible(page, tab);
  }
  const page = await open("ports");
  await page.getByText(`port-forward ${device.id}`).waitFor();
});

test("a shell is opened, typed into, measured, asked whether it lives, and ended", async () => {
  const remote = await connected(server, device);
  const page = await open("terminal");
  const screen = page.locator(".xterm-rows");
  const begun = once(remote, "new");
  await page.getByRole("button", { name: "Open a terminal" }).click();
  await begun;
  await screen.getByText("$").waitFor();
  assert.ok(remote.size.terminal_width > 40 && remote.size.terminal_height > 5, JSON.stringify(remote.size));
  const bottom = (place) => page.locator(place).evaluate((one) => one.getBoundingClientRect().bottom);
  assert.ok((await bottom(".xterm-screen")) <= (await bottom(".shell")), "the last line is in sight");
  await page.keyboard.type("grüße\r");
  await screen.getByText("you said: grüße").waitFor();
  await page.keyboard.type("colours\r");
  const orange = screen.getByText("orange", { exact: true });
  await orange.waitFor();
  assert.equal(await orange.evaluate((one) => getComputedStyle(one).color), "rgb(255, 120, 0)");
  assert.equal(await screen.getByText("green", { exact: true }).evaluate((one) => getComputedStyle(one).fontWeight), "700");
  await accessible(page, "a terminal");
  const resized = once(remote, "resize");
  await page.setViewportSize({ width: 390, height: 700 });
  await resized;
  assert.ok(remote.size.terminal_width < 50, JSON.stringify(remote.size));
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "it is no wider than the window");
  await page.setViewportSize({ width: 1280, height: 800 });
  const pong = once(remote, "pong");
  remote.ping();
  await pong;
  // No link of a device leads anywhere.
  remote.print("\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07\r\n");
  await screen.getByText("link").waitFor();
  assert.equal(await page.locator("main a[href^='javascript']").count(), 0);
  await page.keyboard.press("Shift+F6");
  const stopped = once(remote, "stop");
  await page.keyboard.press("Enter");
  await stopped;
  await page.getByText("You have ended it.").waitFor();
  const again = once(remote, "new");
  await page.getByRole("button", { name: "Connect again" }).click();
  await again;
  await screen.getByText("$").waitFor();
  await page.keyboard.type("exit\r");
  await page.getByText("The shell has ended.").waitFor();
  remote.end();
});

test("a shell that is refused, a frame that is none, and a device that goes are said in words", async () => {
  const remote = await connected(server, device);
  remote.refuses = "user nobody is not there";
  const page = await open("terminal");
  await page.getByRole("button", { name: "Open a terminal" }).click();
  await page.getByText("The device opens no shell: user nobody is not there").waitFor();
  remote.refuses = undefined;
  await page.getByRole("button", { name: "Connect again" }).click();
  await page.locator(".xterm-rows").getByText("$").waitFor();
  remote.odd();
  await page.getByText("The device has sent what is no frame").waitFor();
  await page.getByRole("button", { name: "Connect again" }).click();
  await page.locator(".xterm-rows").getByText("$").waitFor();
  remote.end();
  await page.getByText("The connection has ended").waitFor();
});

test("a long text that is pasted arrives whole", async () => {
  const remote = await connected(server, device);
  const page = await open("terminal");
  await page.getByRole("button", { name: "Open a terminal" }).click();
  await page.locator(".xterm-rows").getByText("$").waitFor();
  const text = "0123456789".repeat(3000);
  let typed = "";
  const whole = new Promise((resolve) => {
    remote.on("typed", (part) => {
      typed += part;
      if (typed.length >= text.length) resolve();
    });
  });
  await page.keyboard.insertText(text);
  await whole;
  assert.equal(typed, text);
  remote.end();
});

test("a file goes to the device and comes from it", async () => {
  const remote = await connected(server, device);
  const content = Buffer.from("what is in it\n".repeat(2000));
  remote.files.set("/etc/os-release", content);
  const page = await open("files");
  const from = card(page, "From the device");
  await from.getByLabel("Path on the device").fill("/etc/os-release");
  const [download] = await Promise.all([page.waitForEvent("download"), from.getByRole("button", { name: "Download" }).click()]);
  assert.deepEqual(await readFile(await download.path()), content);
  await from.getByLabel("Path on the device").fill("/nothing");
  await from.getByRole("button", { name: "Download" }).click();
  await from.getByRole("alert").getByText("no such file or directory").waitFor();
  const to = card(page, "To the device");
  await to.getByLabel("File", { exact: true }).setInputFiles({ name: "new.txt", mimeType: "text/plain", buffer: content });
  assert.equal(await to.getByLabel("Path on the device").inputValue(), "/tmp/new.txt");
  await to.getByLabel("Mode").fill("600");
  const put = once(remote, "put");
  await to.getByRole("button", { name: "Upload" }).click();
  const [target] = await put;
  assert.equal(target.mode, 0o600);
  await page.getByText("/tmp/new.txt is on the device.").waitFor();
  assert.deepEqual(remote.files.get("/tmp/new.txt"), content);
  await accessible(page, "files");
  remote.end();
});

test("a connected device is told to ask and to report", async () => {
  const remote = await connected(server, device);
  const page = await open();
  let told = once(remote, "told");
  await page.getByRole("button", { name: "Check for update" }).click();
  assert.deepEqual(await told, ["check-update"]);
  told = once(remote, "told");
  await page.getByRole("button", { name: "Send inventory" }).click();
  assert.deepEqual(await told, ["send-inventory"]);
  remote.end();
});

test("every part is usable in the dark and on a phone", async () => {
  for (const options of [{ colorScheme: "dark" }, { viewport: { width: 390, height: 800 } }]) {
    const page = await open("overview", options);
    for (const part of ["Overview", "Inventory", "Updates", "Configuration", "Alerts", "Terminal", "Files", "Ports"]) {
      await page.getByRole("link", { name: part, exact: true }).last().click();
      await page.waitForFunction(() => !document.querySelector("main").textContent.includes("Loading…"));
      await accessible(page, `${part} ${JSON.stringify(options)}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${part} is no wider than the window`);
    }
  }
});

test("a device is decommissioned, and the list is shown", async () => {
  const other = await deviceOf(server, { identity: { mac: "02:00:00:00:00:09" } });
  const page = await open("overview", { of: other });
  await page.getByRole("button", { name: "Decommission" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Decommission" }).click();
  await page.getByRole("heading", { name: "Devices", exact: true }).waitFor();
  assert.equal((await api("GET", `v2/devauth/devices/${other.id}`)).status, 404);
});
