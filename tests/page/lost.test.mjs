// A page that is loaded anew, and a connection that is lost at any point: what was typed stays, it is said, and nothing is done twice.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { PASSWORD, accessible, artifact, begin, deviceOf, end, held, openAnew, place, rollOut, upload } from "./harness.mjs";

const LIST = "v2/deployments/deployments";

let server;
let browser;
let page;
let api;
const devices = [];
before(async () => {
  ({ server, api, browser, page } = await begin());
  await upload(server, await artifact(server, "release-2"));
  for (let at = 0; at < 3; at += 1) {
    const device = await deviceOf(server, { identity: { serial: `S${at}` } });
    if (at < 2) await device.accepted();
    devices.push(device);
  }
});
after(() => end(server, browser));

const open = async (hash) => {
  await page.unrouteAll({ behavior: "wait" });
  await offline(false);
  await openAnew(server, page, hash);
  await page.locator("main h1").waitFor();
};
/** Loses what is asked next: before it reaches the server, or its answer. */
const loses = (path, method, what) => {
  let isDone = false;
  return page.route(path, async (route) => {
    if (isDone || route.request().method() !== method) return route.fallback();
    isDone = true;
    if (what === "the answer") await route.fetch();
    return route.abort("connectionreset");
  });
};
const lost = () => page.getByText("The server does not answer. What is shown may be old");
const notKnown = (where = page) => where.getByRole("alert").getByText("whether it was done is not known");
/** The net goes and comes as the browser itself tells. */
const offline = (is) => page.context().setOffline(is);
const PATHS = {
  artifacts: "**/v1/deployments/artifacts",
  rollouts: "**/v2/deployments/deployments",
  decision: "**/v2/devauth/devices/*/auth/*/status",
};

test("an upload whose connection goes is sent again by one click, and is there once", async () => {
  const path = await artifact(server, "by-air");
  const uploads = page.getByRole("list", { name: "Uploads" }).getByRole("listitem");
  await open("#/releases");
  await page.getByLabel("Description for them").fill("kept");
  await loses(PATHS.artifacts, "POST", "the request");
  await page.getByLabel("Artifacts (.mender)").setInputFiles(path);
  await uploads.getByText("lost").waitFor();
  await accessible(page, "a lost upload");
  await uploads.getByRole("button", { name: "Send it again" }).click();
  await uploads.getByText("there: by-air").waitFor();
  const [known] = (await api("GET", "v1/deployments/artifacts?name=by-air")).data;
  assert.equal(known.description, "kept");
  // The server has it, and only its answer is lost.
  const other = await artifact(server, "twice");
  await page.route(PATHS.artifacts, async (route) => {
    await upload(server, other);
    await route.abort("connectionreset");
  }, { times: 1 });
  await page.getByLabel("Artifacts (.mender)").setInputFiles(other);
  await uploads.nth(1).getByRole("button", { name: "Send it again" }).click();
  await uploads.nth(1).getByText("There is one already").waitFor();
  assert.equal((await api("GET", "v1/deployments/artifacts?name=twice")).data.length, 1);
});

test("an upload goes on while somebody looks elsewhere, and a reload asks before it ends it", async () => {
  const path = await artifact(server, "elsewhere");
  await open("#/releases");
  const go = await held(page, PATHS.artifacts);
  await page.getByLabel("Artifacts (.mender)").setInputFiles(path);
  await page.getByRole("button", { name: "Stop the upload of" }).waitFor();
  await place(page, "Roll-outs").click();
  await page.getByRole("heading", { name: "Roll-outs" }).waitFor();
  const asked = page.waitForEvent("dialog");
  const reloaded = page.reload().catch(() => {});
  const question = await asked;
  assert.equal(question.type(), "beforeunload");
  await question.dismiss();
  await reloaded;
  go();
  await place(page, "Releases").click();
  await page.getByRole("list", { name: "Uploads" }).getByText("there: elsewhere").waitFor();
});

test("a roll-out that is filled in outlives a lost connection, and is made once", async () => {
  await open("#/rollouts/new?release=release-2");
  await page.getByLabel("Name of the roll-out").fill("Through the storm");
  await page.getByLabel("All accepted devices").check();
  await page.getByText("2 devices are in it.").waitFor();
  await offline(true);
  await page.getByRole("button", { name: "Add a phase" }).click();
  await page.getByLabel("Phase 1: percent").fill("50");
  await page.getByRole("button", { name: "Roll out" }).click();
  await notKnown().first().waitFor();
  await lost().waitFor();
  await accessible(page, "lost while a roll-out is filled in");
  await offline(false);
  await lost().waitFor({ state: "detached" });
  await page.getByText("2 devices are in it.").waitFor();
  assert.equal(await page.getByLabel("Name of the roll-out").inputValue(), "Through the storm");
  assert.equal(await page.getByLabel("Phase 1: percent").inputValue(), "50");
  assert.deepEqual((await api("GET", `${LIST}?name=Through%20the%20storm`)).data, []);
  await loses(PATHS.rollouts, "POST", "the answer");
  await page.getByRole("button", { name: "Roll out" }).click();
  await notKnown().first().waitFor();
  // Who tries again is told that it is there, and led to it.
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("alert").getByText("It was refused: A roll-out with this name and release runs").waitFor();
  await page.getByRole("link", { name: "To the one that runs" }).click();
  await page.getByRole("heading", { name: "Through the storm" }).waitFor();
  const { data } = await api("GET", `${LIST}?name=Through%20the%20storm`);
  assert.equal(data.length, 1);
});

test("a roll-out that one looks at goes on being shown, and says that it may be old", async () => {
  const [{ id }] = (await api("GET", `${LIST}?name=Through%20the%20storm`)).data;
  await open(`#/rollouts/${id}`);
  await page.getByText("0 of 2 devices have ended it").waitFor();
  await offline(true);
  await lost().waitFor();
  await page.getByText("0 of 2 devices have ended it").waitFor();
  await page.getByRole("button", { name: "Hold" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Hold" }).click();
  await notKnown(page.getByRole("dialog")).waitFor();
  assert.equal((await api("GET", `${LIST}/${id}`)).data.held, undefined);
  await offline(false);
  await page.getByRole("dialog").getByRole("button", { name: "Hold" }).click();
  await page.getByText("It is held: held by a person.").waitFor();
  await lost().waitFor({ state: "detached" });
  await page.reload();
  await page.getByText("It is held: held by a person.").waitFor();
  await api("PUT", `${LIST}/${id}/status`, { status: "aborted" });
});

test("a device is accepted once, whatever became of the answer", async () => {
  const device = devices[2];
  await open(`#/devices/${device.id}`);
  const keys = page.getByRole("region", { name: "Keys" });
  await keys.getByRole("button", { name: "Accept" }).click();
  await loses(PATHS.decision, "PUT", "the request");
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Accept" }).click();
  await notKnown(dialog).waitFor();
  assert.equal((await api("GET", `v2/devauth/devices/${device.id}`)).data.status, "pending");
  await loses(PATHS.decision, "PUT", "the answer");
  await dialog.getByRole("button", { name: "Accept" }).click();
  await notKnown(dialog).waitFor();
  await dialog.getByRole("button", { name: "Accept" }).click();
  await keys.getByText("accepted", { exact: true }).waitFor();
  const entries = (await api("GET", `v1/auditlogs/logs?object_id=${device.id}`)).data.filter((one) => one.change?.includes("accepted"));
  // What never arrived is not there; what a person did twice is, twice.
  assert.equal(entries.length, 2);
  assert.equal((await api("GET", `v2/devauth/devices/${device.id}`)).data.status, "accepted");
});

test("many devices that are decided about while the connection goes are named, and the rest is not begun", async () => {
  const waiting = [];
  for (let at = 0; at < 8; at += 1) waiting.push(await deviceOf(server, { identity: { serial: `W${at}` } }));
  await open("#/devices?status=pending");
  await page.getByText("8 devices", { exact: true }).waitFor();
  await page.getByLabel("Choose all on this page").check();
  await page.getByRole("button", { name: "Accept", exact: true }).click();
  await page.route(PATHS.decision, (route) => route.abort("connectionreset"));
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await page.getByText(/0 devices done, \d not, \d not begun\./).waitFor();
  await page.unroute(PATHS.decision);
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  assert.equal((await api("GET", "v2/devauth/devices/count?status=pending")).data.count, 8);
  await page.getByLabel("Choose all on this page").check();
  await page.getByRole("button", { name: "Accept", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Accept" }).click();
  await page.getByText("8 devices done.").waitFor();
});

test("settings that are typed stay, and are kept once when the net is back", async () => {
  await open("#/settings?tab=people");
  await page.getByRole("button", { name: "New person" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("E-mail").fill("ada@example.com");
  await dialog.getByLabel("Password").fill(PASSWORD);
  await dialog.getByLabel("RBAC_ROLE_OBSERVER").check();
  await offline(true);
  await dialog.getByRole("button", { name: "Make", exact: true }).click();
  await notKnown(dialog).waitFor();
  await offline(false);
  assert.equal(await dialog.getByLabel("E-mail").inputValue(), "ada@example.com");
  await loses("**/v1/useradm/users", "POST", "the answer");
  await dialog.getByRole("button", { name: "Make", exact: true }).click();
  await notKnown(dialog).waitFor();
  await dialog.getByRole("button", { name: "Make", exact: true }).click();
  await dialog.getByRole("alert").getByText(/exists|already/).waitFor();
  await page.keyboard.press("Escape");
  await page.reload();
  await page.getByRole("cell", { name: "ada@example.com", exact: true }).waitFor();
  const people = (await api("GET", "v1/useradm/users")).data.filter((one) => one.email === "ada@example.com");
  assert.equal(people.length, 1);
});

test("who sends again what had no answer is not taken for somebody else", async () => {
  const id = devices[0].id;
  const dialog = page.getByRole("dialog");
  const again = async (path, method, button, where = dialog) => {
    await loses(path, method, "the answer");
    await button.click();
    await notKnown(where).waitFor();
    await button.click();
  };
  await open("#/releases/release-2");
  await page.getByLabel("What people should know about it").fill("noted");
  await again("**/releases/release-2", "PATCH", page.getByRole("button", { name: "Save the notes" }), page);
  await page.getByText("The notes are saved.").waitFor();
  await open(`#/devices/${id}`);
  await page.getByRole("region", { name: "Tags" }).getByRole("button", { name: "Change" }).click();
  await dialog.getByLabel("Value").fill("Kitchen");
  await again("**/tags", "PUT", dialog.getByRole("button", { name: "Save" }));
  await page.getByRole("heading", { name: "Kitchen", level: 1 }).waitFor();
  await open(`#/devices/${id}?tab=configuration`);
  await page.getByRole("button", { name: "Change" }).click();
  for (const [at, name, value] of [[0, "zone", "UTC"], [1, "led", "on"]]) {
    if (at > 0) await dialog.getByRole("button", { name: "Another setting" }).click();
    await dialog.getByLabel("Name").nth(at).fill(name);
    await dialog.getByLabel("Value").nth(at).fill(value);
  }
  await again(`**/configurations/device/${id}`, "PUT", dialog.getByRole("button", { name: "Save and deploy" }));
  await page.getByText("The configuration is deployed").waitFor();
  const filter = await api("POST", "v2/inventory/filters", { name: "kept", terms: [{ scope: "identity", attribute: "status", type: "$eq", value: "accepted" }] });
  await open(`#/devices?filter=${filter.headers.get("Location").split("/").pop()}`);
  await page.getByText("Dynamic group kept").waitFor();
  await page.getByRole("button", { name: "Change" }).click();
  await dialog.getByLabel("Name").fill("kept anew");
  await again("**/v2/inventory/filters/*", "PUT", dialog.getByRole("button", { name: "Save" }));
  await page.getByText("Dynamic group kept anew").waitFor();
  assert.equal((await api("POST", "v2/useradm/roles", { name: "looks", description: "", permission_sets_with_scope: [{ name: "ReadDevices" }] })).status, 201);
  await open("#/settings?tab=roles");
  await page.getByRole("button", { name: "Change looks" }).click();
  await dialog.getByLabel("Who it is for").fill("visitors");
  await again("**/v2/useradm/roles/looks", "PUT", dialog.getByRole("button", { name: "Save" }));
  await page.getByRole("cell", { name: "visitors" }).waitFor();
  const rollout = await rollOut(api, "Held twice", { devices: [id] });
  await open(`#/rollouts/${rollout}`);
  await page.getByRole("button", { name: "Hold" }).click();
  await again("**/status", "PUT", dialog.getByRole("button", { name: "Hold" }));
  await page.getByText("It is held.", { exact: true }).waitFor();
  await dialog.waitFor({ state: "detached" });
  await api("PUT", `${LIST}/${rollout}/status`, { status: "aborted" });
});

test("a configuration that was kept and could not be deployed is deployed by the next try", async () => {
  await open(`#/devices/${devices[1].id}?tab=configuration`);
  await page.getByRole("button", { name: "Change" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("led");
  await dialog.getByLabel("Value").fill("on");
  await loses("**/deploy", "POST", "the request");
  await dialog.getByRole("button", { name: "Save and deploy" }).click();
  await notKnown(dialog).waitFor();
  await dialog.getByRole("button", { name: "Save and deploy" }).click();
  await page.getByText("The configuration is deployed").waitFor();
});

test("names of devices that had no answer are asked for again", async () => {
  const id = devices[1].id;
  await api("PUT", `v1/inventory/devices/${id}/tags`, [{ name: "name", value: "Cellar" }]);
  const rollout = await rollOut(api, "Of names", { devices: [id] });
  await open("#/rollouts");
  await loses("**/v2/inventory/filters/search", "POST", "the request");
  await page.getByRole("link", { name: "Not begun" }).click();
  await page.getByRole("link", { name: "Of names" }).click();
  await page.getByRole("link", { name: /^Cellar/ }).waitFor();
  await api("PUT", `${LIST}/${rollout}/status`, { status: "aborted" });
});

test("what could not be loaded is loaded by itself when the net is back", async () => {
  await page.route("**/v1/useradm/settings/sessions", (route) => route.abort("connectionreset"));
  await openAnew(server, page, "#/settings?tab=you");
  const sessions = page.getByRole("region", { name: "Sessions" });
  await sessions.getByRole("alert").getByText("The server does not answer.").waitFor();
  await page.unrouteAll({ behavior: "wait" });
  await offline(true);
  await offline(false);
  await sessions.getByText("this one").waitFor();
});
