// The way of a new user, from an empty folder to a roll-out that failed and says why, in the order of docs/tour.md.
//
// With ROTA_PICTURES the pictures of that document are written anew.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { join } from "node:path";
import { EMAIL, PASSWORD, apiOf, artifact, deviceOf, end, firstUser, place, startBrowser, startServer } from "./harness.mjs";

const PICTURES = process.env.ROTA_PICTURES;
const PLACES = ["harbour", "mill", "school", "tower"];

let server;
let browser;
let page;
const devices = [];
before(async () => {
  server = await startServer();
  browser = await startBrowser(server);
  page = await browser.page({ viewport: { width: 1200, height: 760 } });
});
after(() => end(server, browser));


async function picture(name, of = page) {
  if (PICTURES) await of.screenshot({ path: join(PICTURES, `${name}.png`), animations: "disabled" });
}

test("1. the first user", async () => {
  await page.goto(server.link);
  await page.getByLabel("E-mail").fill(EMAIL);
  await page.getByLabel("Password").fill(PASSWORD);
  await picture("start");
  await firstUser(server, page);
  await page.getByText("First steps").waitFor();
});

test("2. devices come, and are let in", async () => {
  for (let at = 0; at < 12; at += 1) {
    const inventory = { hostname: `gate-${at + 1}`, place: PLACES[at % PLACES.length], kernel: at < 8 ? "6.1.112" : "6.6.58" };
    devices.push(await deviceOf(server, { identity: { mac: `02:00:00:00:00:${(at + 1).toString(16).padStart(2, "0")}` }, inventory }));
  }
  await place(page, /^Devices/).click();
  await page.getByRole("link", { name: "pending (12)" }).click();
  await page.getByLabel("Choose all on this page").check();
  await picture("pending");
  await page.getByRole("button", { name: "Accept", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await page.getByText("12 devices done.").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  for (const device of devices) {
    await device.find();
    assert.equal(await device.authenticate(), 200);
    await device.report();
  }
  await page.goto(`${server.url}/#/devices?status=accepted`);
  await page.getByText("12 devices", { exact: true }).waitFor();
  await picture("devices");
});

test("3. a release is uploaded", async () => {
  const path = await artifact(server, "release-2");
  await place(page, "Releases").click();
  await page.getByLabel("Artifacts (.mender)").setInputFiles(path);
  await page.getByRole("link", { name: "release-2" }).first().click();
  await page.getByRole("heading", { name: "release-2" }).waitFor();
  await picture("release");
});

test("4. it is rolled out in phases", async () => {
  await page.goto(`${server.url}/#/rollouts/new?release=release-2`);
  await page.getByLabel("Name of the roll-out").fill("November update");
  await page.getByLabel("All accepted devices").check();
  await page.getByRole("button", { name: "5 %, then 25 %, then the rest, a day apart" }).click();
  await page.getByLabel("Phase 1: percent").fill("40");
  await page.getByLabel("counted in").selectOption("devices");
  await page.getByLabel("More failed than").fill("1");
  const beside = page.getByRole("region", { name: "What it would do" });
  await beside.getByText("12 devices are in it.").waitFor();
  await picture("new-roll-out");
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("heading", { name: "November update" }).waitFor();
});

test("5. two devices fail, the rest waits for a person, and each says why", async () => {
  const api = apiOf(server);
  const [{ id }] = (await api("GET", "v2/deployments/deployments")).data;
  let begun = 0;
  for (const device of devices) {
    if ((await device.next()).status !== 200) continue;
    begun += 1;
    await device.says(id, "downloading");
    await device.says(id, "installing");
    if (begun > 2) {
      await device.says(id, "success");
      continue;
    }
    await device.logs(id, "installing single-file", "cannot write /data/app.new: no space left on device", "rolled back");
    await device.says(id, "failure", "no space left on device");
  }
  await page.getByText("It is held:").waitFor();
  await page.getByText("Failures by what the devices have said").first().waitFor();
  await picture("roll-out");
  const causes = page.getByRole("table", { name: "Failures by what the devices have said" });
  await causes.getByRole("button", { name: "Read one" }).first().click();
  await page.getByRole("dialog", { name: "Log of the device" }).getByText("no space left on device").first().waitFor();
  await picture("log");
  await page.keyboard.press("Escape");
});

test("6. the overview says what needs a person", async () => {
  await place(page, "Overview").click();
  await page.getByText("Roll-out November update is held").waitFor();
  await picture("overview");
  const phone = await browser.page({ viewport: { width: 390, height: 760 }, colorScheme: "dark", storageState: await page.context().storageState() });
  await phone.goto(server.url);
  await phone.getByText("Roll-out November update is held").waitFor();
  await picture("phone", phone);
});

test("7. who did what stands in the audit log", async () => {
  await place(page, "Audit log").click();
  await page.getByRole("table", { name: "What people have done" }).getByText(EMAIL).first().waitFor();
  await picture("audit");
});
