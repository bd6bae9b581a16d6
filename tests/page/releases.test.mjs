// Releases: uploaded, looked into, described, compared and deleted.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { accessible, artifact, begin, end, logIn, openAnew, upload } from "./harness.mjs";

let server;
let browser;
let page;
let api;
before(async () => {
  ({ server, api, browser, page } = await begin());
});
after(() => end(server, browser));

const open = (hash) => openAnew(server, page, hash);
const row = (name) => page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });

test("a server without releases says how one comes in", async () => {
  await open("#/releases");
  await page.getByText("There is no release yet").waitFor();
  await accessible(page, "no releases");
});

test("several files are sent one after the other, each with the verdict of the server in words", async () => {
  const good = await artifact(server, "release-1");
  const bad = join(server.folder, "bad.mender");
  await writeFile(bad, "no artifact");
  await page.getByLabel("Description for them").fill("of a test");
  await page.getByLabel("Artifacts (.mender)").setInputFiles([good, bad, good]);
  const uploads = page.getByRole("list", { name: "Uploads" }).getByRole("listitem");
  await uploads.nth(0).getByText("there: release-1").waitFor();
  await uploads.nth(1).getByText("Not a valid artifact").waitFor();
  await uploads.nth(2).getByText("There is one already").waitFor();
  await row("release-1").waitFor();
  await accessible(page, "uploads");
  const { data } = await api("GET", "v2/deployments/deployments/releases/release-1");
  assert.equal(data.artifacts[0].description, "of a test");
});

test("a file that is dropped is sent", async () => {
  const path = await artifact(server, "dropped");
  const content = (await readFile(path)).toString("base64");
  const data = await page.evaluateHandle((text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "dropped.mender"));
    return transfer;
  }, content);
  await page.dispatchEvent(".drop", "drop", { dataTransfer: data });
  await row("dropped").waitFor();
});

test("a plain file becomes an artifact", async () => {
  const plain = join(server.folder, "app.conf");
  await writeFile(plain, "answer=42\n");
  await page.getByText("Make one of a plain file").click();
  await page.getByLabel("File", { exact: true }).setInputFiles(plain);
  await page.getByLabel("Name of the release").fill("conf-1");
  await page.getByLabel("Device types", { exact: true }).fill("testbox, board");
  await page.getByLabel("Folder on the device").fill("/etc/app");
  await accessible(page, "a plain file");
  await page.getByRole("button", { name: "Make it" }).click();
  await row("conf-1").waitFor();
  const { data } = await api("GET", "v2/deployments/deployments/releases/conf-1");
  assert.deepEqual(data.artifacts[0].device_types_compatible, ["testbox", "board"]);
  assert.ok(data.artifacts[0].updates[0].files.some((file) => file.name === "app.conf"));
  assert.equal((await api("DELETE", "v2/deployments/deployments/releases?name=conf-1")).status, 204);
});

test("the list is filtered by the server, and the filter stands in the address", async () => {
  for (let at = 2; at < 24; at += 1) await upload(server, await artifact(server, `more-${at}`, { type: at % 2 ? "board" : "testbox" }));
  await api("PUT", "v2/deployments/deployments/releases/more-7/tags", ["stable"]);
  await open("#/releases");
  await page.getByText("24 releases").waitFor();
  assert.equal(await page.getByRole("row").count(), 21, "a page has 20");
  await page.getByRole("button", { name: "Next page" }).click();
  await page.waitForURL(/page=2/);
  await page.getByLabel("Page", { exact: true }).waitFor();
  await page.getByRole("searchbox", { name: "Name" }).fill("MORE-1");
  await page.waitForURL(/name=MORE-1/);
  await page.getByText("10 releases").waitFor();
  await page.reload();
  await page.getByText("10 releases").waitFor();
  assert.equal(await page.getByRole("searchbox", { name: "Name" }).inputValue(), "MORE-1");
  await page.getByRole("searchbox", { name: "Name" }).fill("");
  await page.getByLabel("Tag").selectOption("stable");
  await page.getByText("1 release", { exact: true }).waitFor();
  await row("more-7").waitFor();
  await page.getByLabel("Tag").selectOption("");
  await page.getByRole("button", { name: "Name" }).click();
  await page.waitForURL(/sort=name/);
  await page.getByRole("columnheader", { name: "Name" }).and(page.locator("[aria-sort=ascending]")).waitFor();
});

test("a release shows what is inside of its artifacts", async () => {
  await open("#/releases/release-1");
  await page.getByRole("button", { name: "What is inside" }).click();
  const dialog = page.getByRole("dialog", { name: "Artifact of release-1" });
  await dialog.getByText("single-file", { exact: true }).waitFor();
  await dialog.getByText("release-1.txt").waitFor();
  await dialog.getByText("not signed").waitFor();
  const { data } = await api("GET", "v2/deployments/deployments/releases/release-1");
  await dialog.getByText(data.artifacts[0].sha256, { exact: true }).waitFor();
  await accessible(page, "inside of an artifact");
  await dialog.getByLabel("Description").fill("said anew");
  await dialog.getByRole("button", { name: "Save the description" }).click();
  await page.getByRole("status").getByText("The description is saved.").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("cell", { name: "said anew" }).waitFor();
});

test("an artifact is downloaded as it was uploaded, and goes by itself", async () => {
  const path = await artifact(server, "two", { type: "board" });
  await upload(server, path);
  await upload(server, await artifact(server, "two"));
  await open("#/releases/two");
  await page.getByRole("button", { name: /^What is inside the artifact for testbox/ }).click();
  const dialog = page.getByRole("dialog", { name: "Artifact of two" });
  const [download] = await Promise.all([page.waitForEvent("download"), dialog.getByRole("button", { name: "Download" }).click()]);
  assert.deepEqual(await readFile(await download.path()), await readFile(path));
  await dialog.getByRole("button", { name: "Delete the artifact" }).click();
  await page.getByRole("dialog", { name: "Delete this artifact?" }).getByRole("button", { name: "Delete" }).click();
  await page.getByRole("heading", { name: "Artifacts (1)" }).waitFor();
  const { data } = await api("GET", "v2/deployments/deployments/releases/two");
  assert.deepEqual(data.artifacts[0].device_types_compatible, ["board"]);
});

test("notes and tags are kept, and what the server refuses is said", async () => {
  await open("#/releases/release-1");
  await page.getByLabel("What people should know about it").fill("<b>Mind the gap</b>");
  await page.getByRole("button", { name: "Save the notes" }).click();
  await page.getByText("The notes are saved.").waitFor();
  await page.getByLabel("New tag").fill("stable spring");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByRole("button", { name: "Take the tag spring away" }).click();
  await page.getByRole("button", { name: "Take the tag spring away" }).waitFor({ state: "detached" });
  await page.getByLabel("New tag").fill("a/b");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByRole("alert").getByText("a tag has only letters").waitFor();
  const { data } = await api("GET", "v2/deployments/deployments/releases/release-1");
  assert.deepEqual([data.notes, data.tags], ["<b>Mind the gap</b>", ["stable"]]);
  await page.reload();
  assert.equal(await page.getByLabel("What people should know about it").inputValue(), "<b>Mind the gap</b>");
  await accessible(page, "a release");
});

test("two releases stand side by side with what differs", async () => {
  await open("#/releases");
  await page.getByLabel("Choose release-1", { exact: true }).check();
  await page.getByLabel("Choose more-23", { exact: true }).check();
  await page.getByRole("link", { name: "Compare the two" }).click();
  const table = page.getByRole("table", { name: "release-1 beside more-23" });
  const line = (name) => table.getByRole("row").filter({ hasText: name });
  await line("SHA-256").getByText("differs").waitFor();
  await line("Payload type").getByText("same").waitFor();
  await line("File release-1.txt").getByText("differs").waitFor();
  await accessible(page, "compared");
});

test("what is deployed is not deleted, and the roll-out that needs it is named", async () => {
  const { data: device } = await preauthorized();
  const made = await api("POST", "v2/deployments/deployments", { name: "Needs it", artifact_name: "release-1", devices: [device] });
  assert.equal(made.status, 201);
  await open("#/releases/release-1");
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "Delete release release-1?" });
  await dialog.getByRole("button", { name: "Delete" }).click();
  await dialog.getByText("cannot be deleted while roll-outs that run need it").waitFor();
  await dialog.getByRole("link", { name: "Needs it" }).waitFor();
  await accessible(page, "a release that is needed");
  await page.keyboard.press("Escape");
  await open("#/releases/dropped");
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByRole("heading", { name: "Releases" }).waitFor();
  assert.equal((await api("GET", "v2/deployments/deployments/releases/dropped")).status, 404);
  await open("#/releases/dropped");
  await page.getByText("There is no release with this name").waitFor();
});

/** A device that is let in before it comes: `{data: id}`. */
async function preauthorized() {
  const { generateKeyPairSync } = await import("node:crypto");
  const { publicKey } = generateKeyPairSync("ed25519");
  const identity_data = { serial: "in advance" };
  assert.equal((await api("POST", "v2/devauth/devices", { identity_data, pubkey: publicKey.export({ type: "spki", format: "pem" }) })).status, 201);
  const found = await api("POST", "v2/devauth/devices/search", {});
  return { data: found.data[0].id };
}

test("in the dark and on a phone it is readable as well", async () => {
  for (const options of [{ colorScheme: "dark" }, { viewport: { width: 390, height: 800 } }]) {
    const other = await browser.page(options);
    await logIn(server, other);
    for (const [hash, shown] of [["#/releases", "release-1"], ["#/releases/release-1?compare=yes&with=more-2", "differs"]]) {
      await other.goto(`${server.url}/${hash}`);
      await other.getByText(shown).first().waitFor();
      await accessible(other, `${hash} ${JSON.stringify(options)}`);
      const width = await other.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(width <= 0, `${hash} is wider than the window by ${width}`);
    }
  }
});
