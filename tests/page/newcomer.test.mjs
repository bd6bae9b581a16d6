// Somebody new, with the page alone and from an empty folder: the first user, devices that are let in, a release, a roll-out in phases
// that is held by its rule, why it failed, and those that failed once more. Only devices do something besides.

import { after, before, test } from "node:test";
import { EMAIL, PASSWORD, accessible, artifact, deviceOf, end, place, startBrowser, startServer } from "./harness.mjs";

let server;
let browser;
let page;
const devices = [];
before(async () => {
  server = await startServer();
  browser = await startBrowser(server);
  page = await browser.page();
});
after(() => end(server, browser));


/** What a client does when it asks: it reports, and carries out what it is given, `how`. */
async function ask(device, how) {
  const order = await device.next();
  if (order.status !== 200) return undefined;
  const { id } = order.data;
  await device.says(id, "downloading");
  await device.says(id, "installing");
  if (how === "failure") await device.logs(id, "installing single-file", "error: no space left on device");
  await device.says(id, how);
  return id;
}

test("the first user is made by the link that the server has printed", async () => {
  await page.goto(server.link);
  await page.getByRole("heading", { name: "Welcome" }).waitFor();
  await page.getByLabel("E-mail").fill(EMAIL);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Begin" }).click();
  await page.getByText("First steps").waitFor();
});

test("devices that call are noticed, and accepted", async () => {
  for (let at = 0; at < 4; at += 1) devices.push(await deviceOf(server, { identity: { serial: `box-${at}` } }));
  await place(page, /^Devices/).click();
  await page.getByRole("link", { name: "pending (4)" }).click();
  await page.getByLabel("Choose all on this page").check();
  await page.getByRole("button", { name: "Accept", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await page.getByText("4 devices done.").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  for (const device of devices) {
    await device.authenticate();
    await device.report();
  }
});

test("a release is uploaded, and rolled out from where it is shown, in phases", async () => {
  await place(page, "Releases").click();
  await page.getByLabel("Artifacts (.mender)").setInputFiles(await artifact(server, "release-2"));
  await page.getByRole("list", { name: "Uploads" }).getByRole("link", { name: "release-2" }).click();
  await page.getByRole("heading", { name: "release-2" }).waitFor();
  await page.getByRole("link", { name: "Roll out", exact: true }).click();
  await page.getByLabel("All accepted devices").check();
  await page.getByRole("button", { name: "5 %, then 25 %, then the rest, a day apart" }).click();
  await page.getByLabel("Phase 1: percent").fill("50");
  await page.getByLabel("counted in").selectOption("devices");
  await page.getByLabel("More failed than").fill("0");
  await page.getByText("4 devices will get the full image").waitFor();
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByText("0 of 4 devices have ended it").waitFor();
});

test("one fails, the rule holds it, and the log says why", async () => {
  await ask(devices[0], "success");
  await ask(devices[1], "failure");
  await page.getByText("It is held:").waitFor();
  await page.getByText("1 device has failed, more than 0").waitFor();
  await place(page, "Overview").click();
  await page.getByText("is held").first().waitFor();
  await page.getByRole("region", { name: "Needs a person" }).getByRole("link", { name: /^release-2, / }).click();
  const causes = page.getByRole("table", { name: "Failures by what the devices have said" });
  await causes.getByText("no space left on device").waitFor();
  await causes.getByRole("button", { name: "Read one" }).click();
  await page.getByRole("dialog", { name: "Log of the device" }).getByText("installing single-file").waitFor();
  await page.keyboard.press("Escape");
  await accessible(page, "a roll-out that is held");
});

test("it is ended, and what failed is tried again, with success", async () => {
  await page.getByRole("button", { name: "Abort" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Abort" }).click();
  await page.getByRole("link", { name: "Retry the 1 device that failed" }).click();
  await page.getByText("1 device is in it.").waitFor();
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("heading", { name: /, again$/ }).waitFor();
  await ask(devices[1], "success");
  await page.getByText("1 of 1 device has ended it (100 %), 1 with success.").waitFor();
});
