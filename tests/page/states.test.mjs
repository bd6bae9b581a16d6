// What is on the screen is what is so: nothing waits for ever, no old rows stand as new ones, the focus is where one was, and
// nobody is asked while nobody looks.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { EMAIL, accessible, artifact, begin, deviceOf, end, held, logIn, openAnew, place, upload } from "./harness.mjs";

let server;
let browser;
let page;
let api;
const devices = [];
before(async () => {
  ({ server, api, browser, page } = await begin());
  await upload(server, await artifact(server, "release-2"));
  for (let at = 0; at < 3; at += 1) devices.push(await deviceOf(server, { identity: { serial: `S${at}` } }));
  await devices[0].accepted();
});
after(() => end(server, browser));

const open = async (hash, of = page) => {
  // What a test that has failed keeps waiting is not waited for.
  await of.unrouteAll({ behavior: "ignoreErrors" });
  await openAnew(server, of, hash);
  await of.locator("main h1").waitFor();
};
/** What has the focus: its name for those who listen, or its text. */
const focused = (of = page) => of.evaluate(() => document.activeElement.ariaLabel ?? document.activeElement.textContent.trim());
/** A page whose clock can be put forward. */
async function clocked() {
  const other = await browser.page();
  await other.clock.install();
  await logIn(server, other);
  return other;
}

test("a page that comes late does not take the place of the one that was opened since", async () => {
  await open("#/");
  const go = await held(page, "**/page/pages/devices.js");
  await place(page, /^Devices/).click();
  await place(page, "Releases").click();
  await page.getByRole("heading", { name: "Releases" }).waitFor();
  go();
  await page.evaluate(() => import("/page/pages/devices.js"));
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  assert.equal(await page.getByRole("heading", { name: "Releases" }).count(), 1);
});

test("rows of before are said to be old while others are on their way, and not all of them are taken for those", async () => {
  await open("#/devices");
  await page.getByText("3 devices", { exact: true }).waitFor();
  const go = await held(page, "**/v2/inventory/filters/search");
  await page.getByRole("link", { name: /^pending/ }).click();
  const old = page.locator("main [aria-busy=true]");
  await old.getByRole("table", { name: "Devices" }).waitFor();
  await page.locator("main tbody input").first().check();
  await page.getByText("1 device chosen").waitFor();
  assert.equal(await page.getByRole("button", { name: /^Choose all/ }).count(), 0);
  await accessible(page, "old rows");
  go();
  await page.getByText("2 devices", { exact: true }).waitFor();
  await old.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Choose all 2 that are found" }).waitFor();
});

test("while all that are found are counted anew nothing can be done to them", async () => {
  await open("#/devices");
  await page.getByText("3 devices", { exact: true }).waitFor();
  await page.locator("main tbody input").first().check();
  await page.getByRole("button", { name: "Choose all 3 that are found" }).click();
  const go = await held(page, "**/v2/inventory/filters/search");
  await page.getByLabel("Devices on a page").selectOption("20");
  await page.getByText("they are being counted").waitFor();
  assert.equal(await page.getByRole("button", { name: "Decommission" }).count(), 0);
  go();
  await page.getByRole("button", { name: "Decommission" }).waitFor();
  await page.getByText("3 devices chosen").waitFor();
});

test("who stands behind the last page is led to it", async () => {
  for (const [hash, shown] of [["#/devices", "3 devices"], ["#/releases", "1 release"]]) {
    await open(`${hash}?page=9`);
    await page.getByText(shown, { exact: true }).waitFor();
    await page.locator("main tbody tr").first().waitFor();
    assert.match(page.url(), /page=1$/);
  }
});

test("a page that is none is the first", async () => {
  for (const hash of ["#/audit", "#/releases", "#/rollouts?tab=all"]) {
    for (const none of ["-1", "1.5", "x", "1e999"]) {
      await open(`${hash}${hash.includes("?") ? "&" : "?"}page=${none}`);
      await page.locator("main table, main .empty").first().waitFor();
      assert.equal(await page.getByRole("alert").count(), 0, `${hash} ${none}`);
    }
  }
});

test("who turns pages with the keyboard stays where they are, also at the end", async () => {
  const [entry] = (await api("GET", "v1/auditlogs/logs")).data;
  await open("#/audit");
  await page.route("**/v1/auditlogs/logs?**", (route) => {
    const at = new URL(route.request().url()).searchParams.get("page");
    return route.fulfill({ json: [{ ...entry, action: `of page ${at}` }], headers: { "X-Total-Count": "120" } });
  });
  await page.reload();
  const next = page.getByRole("button", { name: "Next page" });
  for (const at of [2, 3]) {
    await next.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("cell", { name: `of page ${at}` }).waitFor();
    assert.equal(await focused(), "Next page");
  }
  await accessible(page, "the last page");
  await page.keyboard.press("Enter");
  assert.match(page.url(), /page=3$/, "behind the last one there is none");
});

test("who closes a window is where they were, or at the head of the page", async () => {
  await open("#/devices?status=pending");
  await page.getByText("2 devices", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Columns" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.equal(await focused(), "Columns");
  await page.locator("main tbody input").first().check();
  await page.getByRole("button", { name: "Accept", exact: true }).click();
  await dialog.getByRole("button", { name: "Accept" }).click();
  await dialog.getByText("1 device done.").waitFor();
  await dialog.getByRole("button", { name: "Close" }).click();
  await dialog.waitFor({ state: "detached" });
  // What has opened it is gone with what was chosen.
  await page.waitForFunction(() => document.activeElement.textContent === "Devices");
});

test("in a window nobody stands nowhere, and what is said is said in it", async () => {
  await open("#/devices");
  await page.getByText("3 devices", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Columns" }).click();
  const dialog = page.getByRole("dialog");
  const right = dialog.getByRole("button", { name: /: to the right$/ });
  const name = await right.first().getAttribute("aria-label");
  const all = await right.count();
  await right.first().focus();
  // Once more than there are places: at the end it does nothing.
  for (let at = 0; at < all; at += 1) {
    await page.keyboard.press("Enter");
    const place = Math.min(at + 1, all - 1);
    await dialog.locator("li").nth(place).getByRole("button", { name, exact: true }).waitFor();
    await page.waitForFunction((wanted) => document.activeElement.ariaLabel === wanted, name);
  }
  await dialog.getByRole("button", { name: name.replace(": to the right", ": do not show"), exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement === document.querySelector("dialog"));
  await page.evaluate(() => import("/page/ui.js").then(({ say }) => say("It is done.")));
  await dialog.getByRole("status").getByText("It is done.").waitFor();
  assert.equal(await page.getByText("It is done.").count(), 1);
  await accessible(page, "what is said in a window");
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("status").getByText("It is done.").waitFor();
});

test("a button that works keeps the focus, and sends once", async () => {
  const other = await browser.page();
  await other.goto(server.url);
  await other.getByLabel("E-mail").fill(EMAIL);
  await other.getByLabel("Password").fill("not the password");
  let sent = 0;
  other.on("request", (request) => (sent += request.url().endsWith("auth/session") ? 1 : 0));
  const go = await held(other, "**/useradm/auth/session");
  await other.getByRole("button", { name: "Log in" }).focus();
  await other.keyboard.press("Enter");
  await other.getByRole("button", { name: "Working…" }).waitFor();
  await other.keyboard.press("Enter");
  go();
  await other.getByRole("alert").getByText("wrong").waitFor();
  assert.equal(await focused(other), "Log in");
  assert.equal(sent, 1);
});

test("what is done without a form is done once, however often it is pressed", async () => {
  const id = devices[0].id;
  await api("PUT", `v1/deviceconfig/configurations/device/${id}`, { led: "on" });
  await open(`#/devices/${id}?tab=configuration`);
  let sent = 0;
  const note = (request) => (sent += request.url().endsWith("/deploy") ? 1 : 0);
  page.on("request", note);
  const go = await held(page, "**/deploy");
  await page.getByRole("button", { name: "Deploy again" }).evaluate((button) => {
    // Before the page is drawn again, and behind that.
    button.click();
    button.click();
    return new Promise((resolve) => requestAnimationFrame(() => resolve(button.click())));
  });
  go();
  await page.getByText("The configuration is deployed").waitFor();
  page.off("request", note);
  assert.equal(sent, 1);
});

test("work on many devices goes on until it is stopped by its button, and says what came of it", async () => {
  await open("#/devices?status=pending");
  await page.getByText("1 device", { exact: true }).waitFor();
  await page.locator("main tbody input").first().check();
  const go = await held(page, "**/auth/*/status");
  await page.getByRole("button", { name: "Reject" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Reject" }).click();
  await dialog.getByText("0 of 1 device. Leave this window open.").waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  go();
  await dialog.getByText("1 device done.").waitFor();
});

test("an answer that never comes is waited for no longer than two minutes", async () => {
  const other = await clocked();
  await other.route("**/v1/auditlogs/logs?**", () => {});
  const asked = other.waitForRequest("**/v1/auditlogs/logs?**");
  await openAnew(server, other, "#/audit");
  await asked;
  await other.clock.fastForward(121000);
  await other.getByRole("alert").getByText("The server does not answer.", { exact: true }).waitFor();
  await other.unrouteAll({ behavior: "ignoreErrors" });
});

test("a page that nobody sees asks nothing, and asks at once when it is seen again", async () => {
  const other = await clocked();
  await openAnew(server, other, "#/releases");
  await other.getByRole("table", { name: "Releases" }).waitFor();
  const turn = (isHidden) =>
    other.evaluate((is) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => is });
      document.dispatchEvent(new Event("visibilitychange"));
    }, isHidden);
  await turn(true);
  await other.waitForLoadState("networkidle");
  const asked = [];
  const note = (request) => asked.push(request.url());
  other.on("request", note);
  for (let at = 0; at < 3; at += 1) await other.clock.fastForward(31000);
  await other.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
  assert.deepEqual(asked, []);
  other.off("request", note);
  // The next turn would be half a minute later.
  const again = other.waitForRequest(/deployments\/releases\?/, { timeout: 10000 });
  await turn(false);
  await again;
});

test("the overview asks for each list of roll-outs once", async () => {
  const other = await clocked();
  // What the overview behind the login asks is over.
  await other.goto("about:blank");
  const asked = [];
  other.on("request", (request) => request.url().includes("deployments/deployments?") && asked.push(new URL(request.url()).searchParams.get("status")));
  await openAnew(server, other, "#/");
  await other.getByText("None runs.").or(other.getByRole("table", { name: "Roll-outs that run" })).waitFor();
  assert.deepEqual(asked.sort(), ["finished", "inprogress", "pending", "scheduled"]);
  // Of many the answer is large: it is asked for seldom.
  await other.route("**/deployments/deployments?**", async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, headers: { ...answer.headers(), "x-total-count": "1000" } });
  });
  await other.clock.fastForward(6000);
  await other.getByText("The newest of each state, of 3,000 in all.").waitFor();
  asked.length = 0;
  await other.clock.fastForward(6000);
  await other.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
  assert.deepEqual(asked, []);
  await other.unrouteAll({ behavior: "ignoreErrors" });
});

test("nobody is made who may do everything because the roles could not be read", async () => {
  await open("#/settings?tab=people");
  await page.route("**/v2/useradm/roles?**", (route) => route.fulfill({ status: 500, json: { error: "the store is busy" } }));
  await page.reload();
  await page.getByRole("button", { name: "New person" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("alert").getByText("The store is busy.").waitFor();
  assert.ok(await dialog.getByRole("button", { name: "Make", exact: true }).isDisabled());
  await page.unrouteAll({ behavior: "wait" });
  await dialog.getByRole("button", { name: "Try again" }).click();
  await dialog.getByLabel("RBAC_ROLE_OBSERVER").waitFor();
  assert.ok(await dialog.getByRole("button", { name: "Make", exact: true }).isEnabled());
  // What a role allows cannot be read either: that is said, and not nothing done.
  await open("#/settings?tab=roles");
  await page.route("**/v2/useradm/permission_sets", (route) => route.fulfill({ status: 500, json: { error: "the store is busy" } }));
  await page.reload();
  await page.getByRole("button", { name: "New role" }).click();
  await dialog.getByRole("alert").getByText("The store is busy.").waitFor();
  await page.unrouteAll({ behavior: "wait" });
});

test("roles come in pages", async () => {
  // Five are always there.
  for (let at = 0; at < 46; at += 1) assert.equal((await api("POST", "v2/useradm/roles", { name: `role ${String(at).padStart(2, "0")}` })).status, 201);
  await open("#/settings?tab=roles");
  await page.getByText("51 roles", { exact: true }).waitFor();
  assert.equal(await page.locator("main tbody tr").count(), 50);
  await page.getByRole("button", { name: "Next page" }).click();
  await page.getByRole("button", { name: "Remove role 45" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  // Who has taken the last one of a page away is led to the one before.
  await page.getByText("50 roles", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Remove role 44" }).waitFor();
});

test("an empty file is not dropped without a word", async () => {
  await open("#/releases");
  await page.getByLabel("Artifacts (.mender)").setInputFiles({ name: "nothing.mender", mimeType: "application/octet-stream", buffer: Buffer.alloc(0) });
  await page.getByText("nothing.mender is not sent").waitFor();
});
