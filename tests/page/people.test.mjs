// More than one person: what roles leave out, and what two who change the same thing see of each other.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { PASSWORD, accessible, artifact, begin, deviceOf, end, logIn, openAnew, rollOut, upload } from "./harness.mjs";

const LIST = "v2/deployments/deployments";
const RELEASES = `${LIST}/releases`;

let server;
let browser;
let api;
let rollout;
const devices = [];
before(async () => {
  ({ server, api, browser } = await begin());
  for (const name of ["release-2", "release-3"]) await upload(server, await artifact(server, name));
  for (let at = 0; at < 4; at += 1) {
    const device = await deviceOf(server, { identity: { serial: `S${at}` } });
    if (at < 3) await device.accepted();
    devices.push(device);
  }
  for (const [at, group] of [[0, "lab"], [1, "lab"], [2, "field"]]) await api("PUT", `v1/inventory/devices/${devices[at].id}/group`, { group });
  rollout = await made("Watched", devices.slice(0, 3));
  const names = ["ReadDevices", "ManageDevices", "ConfigureDevices", "ConnectToDevices", "DeployToDevices"];
  const scope = { type: "DeviceGroups", value: ["lab"] };
  assert.equal((await api("POST", "v2/useradm/roles", { name: "lab", description: "", permission_sets_with_scope: names.map((name) => ({ name, scope })) })).status, 201);
  for (const [name, roles] of [["reader", ["RBAC_ROLE_OBSERVER"]], ["lab", ["lab"]], ["deployer", ["RBAC_ROLE_DEPLOYMENTS_MANAGER"]], ["builder", ["RBAC_ROLE_CI"]], ["other", []]]) {
    assert.equal((await api("POST", "v1/useradm/users", { email: `${name}@example.com`, password: PASSWORD, roles })).status, 201);
  }
});
after(() => end(server, browser));

const made = (name, whose, release = "release-2") => rollOut(api, name, { artifact_name: release, devices: whose.map((device) => device.id) });

/** A page of somebody who is in; `page.refused` are the answers that say that something is not allowed. */
async function personOf(name, options) {
  const page = await browser.page(options);
  page.refused = [];
  page.on("response", (answer) => {
    if (answer.status() === 403) page.refused.push(`${answer.request().method()} ${answer.url()}`);
  });
  await logIn(server, page, name ? { email: `${name}@example.com` } : {});
  page.open = async (hash) => {
    await openAnew(server, page, hash);
    await page.locator("main h1").waitFor();
    await page.waitForFunction(() => !document.querySelector("main").textContent.includes("Loading…"));
  };
  return page;
}
const parts = (device) => ["overview", "inventory", "updates", "configuration", "alerts", "terminal", "files", "ports"].map((tab) => `#/devices/${device.id}?tab=${tab}`);
const settings = ["you", "people", "roles", "mails", "webhooks", "server"].map((tab) => `#/settings?tab=${tab}`);
const everywhere = () => ["#/", "#/devices", "#/devices?status=pending", "#/devices?group=lab", "#/releases", "#/releases/release-2", "#/rollouts", "#/rollouts?tab=all", "#/rollouts/new", `#/rollouts/${rollout}`, "#/audit", ...settings, ...parts(devices[0])];
const buttons = (page) => page.locator("main").locator("button, a.button").allInnerTexts();

/** Opens every page, and holds that nothing of `never` is offered there. */
async function offersNone(page, hashes, never) {
  for (const hash of hashes) {
    await page.open(hash);
    const found = (await buttons(page)).filter((text) => never.some((one) => one.test(text)));
    assert.deepEqual(found, [], hash);
    await accessible(page, hash);
  }
}
const menu = async (page) => (await page.getByRole("navigation", { name: "Places" }).getByRole("link").allInnerTexts()).map((text) => text.trim().split("\n")[0]);

const CHANGES_DEVICES = [/^Accept$/, /^Reject$/, /^Dismiss$/, /^End its login$/, /^Decommission$/, /^Expect a device$/, /^Change$/, /^Move$/, /^Take out$/, /^Forget/, /^Keep as/, /^Deploy again$/, /^Put into/];
const DEPLOYS = [/^New roll-out$/, /^Roll out/, /^Hold$/, /^Abort$/, /^End/, /^Clear the history$/, /^Retry/, /^Save the pauses$/];
const CHANGES_RELEASES = [/^Delete/, /^Save the/, /^Add$/, /^Make it$/];
const CHANGES_PEOPLE = [/^New (person|role|webhook)$/, /^Keep as CSV$/];

test("who may only look is offered nothing else, on every page", async () => {
  const page = await personOf("reader");
  assert.deepEqual(await menu(page), ["Overview", "Devices", "Releases", "Roll-outs", "Settings"]);
  await offersNone(page, everywhere(), [...CHANGES_DEVICES, ...DEPLOYS, ...CHANGES_RELEASES, ...CHANGES_PEOPLE]);
  assert.deepEqual(page.refused, [], "nothing is asked that is refused");
  await page.open("#/devices");
  await page.getByRole("link", { name: "S0" }).waitFor();
  assert.equal(await page.locator("main input[type=checkbox]").count(), 0, "what nothing can be done with is not ticked");
  await page.open("#/rollouts/new");
  await page.getByText("Your roles do not let you make a roll-out.").waitFor();
  await page.open("#/audit");
  await page.getByText("Your roles do not let you see what people have done.").waitFor();
  await page.open("#/settings?tab=people");
  await page.getByText("Your roles do not let you see this part.").waitFor();
  assert.equal(await page.getByRole("navigation", { name: "Parts" }).getByRole("link", { name: "Roles" }).count(), 0);
  await page.open(`#/devices/${devices[0].id}?tab=terminal`);
  await page.getByText("Your roles do not let you have “Terminal” of this device.").waitFor();
  await page.open("#/settings?tab=server");
  await page.getByText("There is no limit.").waitFor();
});

test("a role for one group sees its devices, changes them, and no others", async () => {
  const page = await personOf("lab");
  await page.getByText("Your roles let you see the devices of this group:").waitFor();
  assert.deepEqual(await menu(page), ["Overview", "Devices", "Settings"]);
  await accessible(page, "the overview of a group");
  await page.getByRole("link", { name: "lab" }).click();
  await page.getByText("2 devices", { exact: true }).waitFor();
  // Without a group in the address it is one's own.
  await page.open("#/devices");
  await page.getByText("2 devices", { exact: true }).waitFor();
  assert.equal(await page.getByRole("link", { name: "S2" }).count(), 0);
  assert.deepEqual(await page.getByLabel("Group", { exact: true }).locator("option").allInnerTexts(), ["lab"]);
  await page.getByLabel("Choose all on this page").check();
  const offered = await page.locator("main .note button").allInnerTexts();
  assert.ok(offered.includes("Reject") && !offered.includes("Put into a group"), offered.join());
  assert.deepEqual(page.refused, []);
  await page.open(`#/devices/${devices[0].id}`);
  await page.getByRole("region", { name: "Tags" }).getByRole("button", { name: "Change" }).click();
  await page.getByRole("dialog").getByLabel("Value").fill("Bench");
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await page.getByRole("heading", { name: "Bench", level: 1 }).waitFor();
  await offersNone(page, everywhere(), [/^Expect a device$/, /^Keep as/, ...CHANGES_RELEASES, ...CHANGES_PEOPLE, /^Hold$/, /^Abort$/]);
  // A device of another group is not theirs, and that is said.
  await page.open(`#/devices/${devices[2].id}`);
  await page.getByRole("alert").getByText("your roles do not allow this").first().waitFor();
  assert.deepEqual((await buttons(page)).filter((text) => [...CHANGES_DEVICES, ...DEPLOYS].some((one) => one.test(text))), []);
});

test("a device that could not be asked about is not said to be gone", async () => {
  const page = await personOf("lab");
  await page.open("#/devices?group=lab");
  await page.getByLabel("Choose all on this page").check();
  await page.getByRole("button", { name: "Reject" }).click();
  await page.route((url) => url.pathname.endsWith(`/devauth/devices/${devices[0].id}`), (route) => route.abort("connectionreset"));
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Reject" }).click();
  await dialog.getByRole("alert").getByText("The server does not answer.").waitFor();
  await dialog.getByText("0 devices done, 2 not begun.").waitFor();
  assert.equal(await dialog.getByText("It is not there any more.").count(), 0);
});

test("a role for one group rolls out to it", async () => {
  const page = await personOf("lab");
  await page.open("#/rollouts/new?release=release-3&group=lab");
  assert.equal(await page.getByLabel("All accepted devices").count(), 0);
  assert.equal(await page.getByLabel("A dynamic group").count(), 0);
  assert.deepEqual(await page.getByLabel("Group", { exact: true }).locator("option").allInnerTexts(), ["choose", "lab"]);
  await page.getByLabel("Name of the roll-out").fill("For the lab");
  await page.getByText("2 devices are in it.").waitFor();
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByText("Roll-out For the lab is made.").waitFor();
  await page.waitForURL(/devices\?group=lab/);
  const [{ id, device_count: count }] = (await api("GET", `${LIST}?name=For%20the%20lab`)).data;
  assert.equal(count, 2);
  await api("PUT", `${LIST}/${id}/status`, { status: "aborted" });
});

test("who makes roll-outs changes no device and no release", async () => {
  const page = await personOf("deployer");
  await offersNone(page, everywhere(), [...CHANGES_DEVICES, ...CHANGES_RELEASES, ...CHANGES_PEOPLE]);
  assert.deepEqual(page.refused, []);
  await page.open("#/releases/release-2");
  await page.getByRole("button", { name: "What is inside" }).click();
  await page.getByRole("dialog").getByText("single-file", { exact: true }).waitFor();
  assert.deepEqual(await page.getByRole("dialog").locator(".actions button").allInnerTexts(), ["Close"], "who deploys has no files");
  await page.open("#/rollouts/new?release=release-3");
  await page.getByLabel("Name of the roll-out").fill("By the deployer");
  await page.getByLabel("All accepted devices").check();
  await page.getByText("3 devices are in it.").waitFor();
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("heading", { name: "By the deployer" }).waitFor();
  await page.getByRole("button", { name: "Abort" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Abort" }).click();
  await page.getByText("ended early").waitFor();
});

test("who makes releases sees no devices", async () => {
  const page = await personOf("builder");
  assert.deepEqual(await menu(page), ["Overview", "Releases", "Settings"]);
  await page.getByText("Your roles let you see a part of this server").waitFor();
  assert.deepEqual(page.refused, []);
  await page.open("#/releases/release-3");
  await page.getByLabel("New tag").fill("built");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByRole("button", { name: "Take the tag built away" }).waitFor();
  await offersNone(page, everywhere(), [...CHANGES_DEVICES, ...DEPLOYS, ...CHANGES_PEOPLE]);
});

test("the same notes of two people: who is second is told, sees the other's, and decides", async () => {
  const [a, b] = [await personOf(), await personOf("other")];
  const notes = (page) => page.getByLabel("What people should know about it");
  for (const page of [a, b]) await page.open("#/releases/release-2");
  await notes(b).fill("What B thinks");
  await notes(a).fill("What A thinks");
  await a.getByRole("button", { name: "Save the notes" }).click();
  await a.getByText("The notes are saved.").waitFor();
  await b.getByRole("button", { name: "Save the notes" }).click();
  await b.getByRole("alert").getByText("Somebody else has changed the notes since you began").waitFor();
  await b.getByText("What A thinks").waitFor();
  assert.equal(await notes(b).inputValue(), "What B thinks");
  assert.equal((await api("GET", `${RELEASES}/release-2`)).data.notes, "What A thinks");
  await accessible(b, "notes of two people");
  await b.getByRole("button", { name: "Save the notes" }).click();
  await b.getByText("The notes are saved.").waitFor();
  assert.equal((await api("GET", `${RELEASES}/release-2`)).data.notes, "What B thinks");
});

test("who describes an artifact or limits downloads after somebody else has is told, and nothing is lost", async () => {
  const [a, b] = [await personOf(), await personOf("other")];
  const dialog = (page) => page.getByRole("dialog");
  for (const page of [a, b]) {
    await page.open("#/releases/release-3");
    await page.getByRole("button", { name: "What is inside" }).click();
    await dialog(page).getByLabel("Description").fill(page === a ? "by A" : "by B");
  }
  const save = (page) => dialog(page).getByRole("button", { name: "Save the description" }).click();
  await save(a);
  await a.getByText("The description is saved.").waitFor();
  await save(b);
  await dialog(b).getByRole("alert").getByText("Somebody else has changed the description since you began").waitFor();
  assert.equal((await api("GET", "v1/deployments/artifacts?name=release-3")).data[0].description, "by A");
  for (const page of [a, b]) {
    await page.open("#/settings?tab=server");
    await page.getByLabel("MiB in an hour").fill(page === a ? "100" : "200");
  }
  await a.getByRole("button", { name: "Save" }).click();
  await a.getByText("The limit holds from now on.").waitFor();
  await b.getByRole("button", { name: "Save" }).click();
  await b.getByRole("alert").getByText("Somebody else has changed the limit since you began").waitFor();
  assert.equal((await api("GET", "v1/deployments/limits/downloads")).data.bytes_per_hour, 100 << 20);
  assert.ok((await api("PUT", "v1/deployments/limits/downloads", {})).status < 300);
});

test("the same tags of two people: of a release all stay, of a device the second is told", async () => {
  const [a, b] = [await personOf(), await personOf("other")];
  for (const page of [a, b]) await page.open("#/releases/release-2");
  for (const [page, tag] of [[a, "of-a"], [b, "of-b"]]) {
    await page.getByLabel("New tag").fill(tag);
    await page.getByRole("button", { name: "Add" }).click();
    await page.getByRole("button", { name: `Take the tag ${tag} away` }).waitFor();
  }
  await b.getByRole("button", { name: "Take the tag of-a away" }).waitFor();
  assert.deepEqual((await api("GET", `${RELEASES}/release-2`)).data.tags.sort(), ["of-a", "of-b"]);
  const card = (page) => page.getByRole("region", { name: "Tags" });
  for (const page of [a, b]) {
    await page.open(`#/devices/${devices[1].id}`);
    await card(page).getByRole("button", { name: "Change" }).click();
  }
  for (const [page, value] of [[a, "by A"], [b, "by B"]]) {
    await page.getByRole("dialog").getByLabel("Value").fill(value);
    await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
    if (page === a) await card(a).getByText("by A").waitFor();
  }
  await b.getByRole("dialog").getByText("Somebody else has changed the tags since you began").waitFor();
  await b.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await card(b).getByText("by A").waitFor();
});

test("a roll-out that somebody else holds, aborts or makes is seen without a reload", async () => {
  const id = await made("Of two", devices.slice(0, 2), "release-3");
  const [a, b] = [await personOf(), await personOf("other")];
  for (const page of [a, b]) await page.open(`#/rollouts/${id}`);
  const press = async (name) => {
    await a.getByRole("button", { name }).click();
    await a.getByRole("dialog").getByRole("button", { name }).click();
  };
  await press("Hold");
  await b.getByText("It is held: held by a person.").waitFor();
  // B is asked while A decides.
  await b.getByRole("button", { name: "Let it go on" }).click();
  await press("Abort");
  const ended = (page) => page.getByRole("button", { name: "Abort" }).waitFor({ state: "detached" });
  await ended(a);
  await b.getByRole("dialog").getByRole("button", { name: "Let it go on" }).click();
  await b.getByRole("dialog").getByRole("alert").getByText(/Somebody else, or a stop rule, has changed it meanwhile|It has ended meanwhile/).waitFor();
  await b.keyboard.press("Escape");
  await ended(b);
  assert.equal(await b.getByText("held by a person").count(), 0, "what a person has aborted is not held any more");
  // Both make the same one.
  for (const page of [a, b]) {
    await page.open("#/rollouts/new?release=release-3");
    await page.getByLabel("Name of the roll-out").fill("Twice");
    await page.getByLabel("All accepted devices").check();
    await page.getByText("3 devices are in it.").waitFor();
  }
  await a.getByRole("button", { name: "Roll out" }).click();
  await a.getByRole("heading", { name: "Twice" }).waitFor();
  await b.getByRole("button", { name: "Roll out" }).click();
  await b.getByRole("alert").getByText("It was refused: A roll-out with this name and release runs").waitFor();
  await b.getByRole("link", { name: "To the one that runs" }).click();
  await b.getByRole("heading", { name: "Twice" }).waitFor();
  const twice = (await api("GET", `${LIST}?name=Twice`)).data;
  assert.equal(twice.length, 1);
  await api("PUT", `${LIST}/${twice[0].id}/status`, { status: "aborted" });
});

test("a release that somebody else deletes meanwhile is not rolled out, and that is said at its field", async () => {
  await upload(server, await artifact(server, "short-lived"));
  const [a, b] = [await personOf(), await personOf("other")];
  await b.open("#/rollouts/new?release=short-lived");
  await b.getByLabel("Name of the roll-out").fill("Too late");
  await b.getByLabel("All accepted devices").check();
  await b.getByText("3 devices are in it.").waitFor();
  await a.open("#/releases/short-lived");
  await a.getByRole("button", { name: "Delete", exact: true }).click();
  await a.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await a.getByRole("heading", { name: "Releases" }).waitFor();
  await b.getByRole("button", { name: "Roll out" }).click();
  await b.getByRole("alert").getByText("It was refused: No artifact has that name.").waitFor();
  assert.equal(await b.getByRole("combobox", { name: "Release" }).getAttribute("aria-invalid"), "true");
  assert.equal(await b.getByLabel("Name of the roll-out").inputValue(), "Too late", "what was filled in stays");
  assert.deepEqual((await api("GET", `${LIST}?name=Too%20late`)).data, []);
});

test("whose login is ended while they work logs in again, and is where they were with what they typed", async () => {
  const [a, b] = [await personOf("other"), await personOf("other")];
  await b.open("#/releases/release-3");
  await b.getByLabel("What people should know about it").fill("Half a sentence");
  await a.open("#/settings?tab=you");
  const ended = a.getByRole("button", { name: "End it" });
  // All but this one, of which some are of tests before.
  for (let left = await ended.count(); left > 0; left -= 1) {
    await ended.first().click();
    await a.getByRole("dialog").getByRole("button", { name: "End it" }).click();
    await a.waitForFunction((count) => [...document.querySelectorAll("main button")].filter((one) => one.textContent === "End it").length === count, left - 1);
  }
  await b.getByRole("button", { name: "Save the notes" }).click();
  const again = b.getByRole("dialog", { name: "Log in again" });
  await again.waitFor();
  await accessible(b, "log in again");
  await b.keyboard.press("Escape");
  await again.waitFor();
  assert.ok(!(await b.getByText("Half a sentence").isVisible()), "until then nothing is seen");
  assert.equal(await again.getByLabel("E-mail").inputValue(), "other@example.com");
  await again.getByLabel("Password").fill("not the password");
  await again.getByRole("button", { name: "Log in" }).click();
  await again.getByRole("alert").getByText("wrong").waitFor();
  await again.getByLabel("Password").fill(PASSWORD);
  await again.getByRole("button", { name: "Log in" }).click();
  await again.waitFor({ state: "detached" });
  assert.match(b.url(), /#\/releases\/release-3$/);
  assert.equal(await b.getByLabel("What people should know about it").inputValue(), "Half a sentence");
  await b.getByRole("button", { name: "Save the notes" }).click();
  await b.getByText("The notes are saved.").waitFor();
  assert.equal((await api("GET", `${RELEASES}/release-3`)).data.notes, "Half a sentence");
});

test("somebody else who logs in on the same window begins anew", async () => {
  const page = await personOf("other");
  await page.open("#/releases/release-3");
  await page.getByLabel("What people should know about it").fill("Nobody else's business");
  await page.context().clearCookies();
  await page.getByRole("button", { name: "Save the notes" }).click();
  const again = page.getByRole("dialog", { name: "Log in again" });
  await again.getByLabel("E-mail").fill("reader@example.com");
  await again.getByLabel("Password").fill(PASSWORD);
  await again.getByRole("button", { name: "Log in" }).click();
  await page.getByText("reader@example.com").waitFor();
  await page.getByRole("heading", { name: "release-3" }).waitFor();
  assert.equal(await page.getByText("Nobody else's business").count(), 0);
  assert.equal(await page.getByRole("button", { name: "Save the notes" }).count(), 0);
});
