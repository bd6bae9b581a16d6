// Roll-outs: made on one page with what they would do beside it, watched without a reload, stopped, and tried again.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { accessible, artifact, begin, deviceOf, end, logIn, openAnew, rollOut, upload } from "./harness.mjs";

const LIST = "v2/deployments/deployments";

let server;
let browser;
let page;
let api;
const devices = [];
before(async () => {
  ({ server, api, browser, page } = await begin());
  for (const name of ["release-2", "release-3"]) await upload(server, await artifact(server, name));
  for (let at = 0; at < 5; at += 1) {
    const device = await deviceOf(server, { identity: { serial: `S${at}` }, type: at === 4 ? "other" : "testbox" });
    devices.push(await device.accepted());
  }
});
after(() => end(server, browser));

const open = (hash) => openAnew(server, page, hash);
const ids = (...which) => which.map((at) => devices[at].id);
const made = (name, fields) => rollOut(api, name, fields);
const found = async (name) => (await api("GET", `${LIST}?name=${encodeURIComponent(name)}`)).data[0];
const ended = (id) => api("PUT", `${LIST}/${id}/status`, { status: "aborted" });
const beside = () => page.getByRole("region", { name: "What it would do" });

test("a server without roll-outs says how one is made", async () => {
  await open("#/rollouts");
  await page.getByText("None runs at the moment.").waitFor();
  await accessible(page, "no roll-outs");
  await page.getByRole("link", { name: "Make one" }).click();
  await page.getByRole("heading", { name: "New roll-out" }).waitFor();
});

test("a release is found by a part of its name, with the keyboard alone", async () => {
  await open("#/rollouts/new");
  const field = page.getByRole("combobox", { name: "Release" });
  await field.fill("SE-3");
  await page.getByRole("option", { name: /release-3/ }).waitFor();
  await accessible(page, "suggestions");
  await field.press("ArrowDown");
  await field.press("Enter");
  assert.equal(await field.inputValue(), "release-3");
  assert.match(await page.getByLabel("Name of the roll-out").inputValue(), /^release-3, /);
});

test("release, target and one click are enough, and what it would do is said before", async () => {
  await open("#/rollouts/new?release=release-2");
  await beside().getByText("Choose which devices it is for.").waitFor();
  await page.getByLabel("Name of the roll-out").fill("One click");
  await page.getByLabel("All accepted devices").check();
  await beside().getByText("5 devices are in it.").waitFor();
  await beside().getByText("4 devices will get the full image of").waitFor();
  await beside().getByText("1 device has the wrong type").waitFor();
  await beside().getByText("waits until 10 devices have ended: of 5, nothing is left then that it could hold").waitFor();
  await accessible(page, "a new roll-out");
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("heading", { name: "One click" }).waitFor();
  const rollout = await found("One click");
  assert.equal(rollout.device_count, 5);
  assert.deepEqual(rollout.rust_ota.stop, [{ failed_percent: 20, after_devices: 10, action: "hold" }]);
});

test("one that runs already is refused in words, with a way to it", async () => {
  await open("#/rollouts/new?release=release-2");
  await page.getByLabel("Name of the roll-out").fill("One click");
  await page.getByLabel("All accepted devices").check();
  await beside().getByRole("link", { name: /this one would be refused/ }).waitFor();
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("alert").getByText("It was refused: A roll-out with this name and release runs").waitFor();
  await page.getByRole("link", { name: "To the one that runs" }).click();
  await page.getByRole("heading", { name: "One click" }).waitFor();
  await ended((await found("One click")).id);
});

test("what the server says against a field stands at the field, before anything is made", async () => {
  await open(`#/rollouts/new?release=release-2&devices=${ids(0, 1)}`);
  await beside().getByText("2 devices are in it.").waitFor();
  await page.getByRole("button", { name: "Add a phase" }).click();
  await page.getByLabel("Phase 1: percent").fill("101");
  const when = page.getByRole("group", { name: "When", exact: true });
  await when.getByRole("alert").getByText("Batch_size is a part in percent").waitFor();
  await page.getByLabel("Phase 1: percent").fill("50");
  await beside().getByText("2 devices are in it.").waitFor();
  await when.getByRole("alert").waitFor({ state: "detached" });
  await page.getByLabel("Ids of the devices").fill("nobody");
  await page.getByRole("group", { name: "Where" }).getByRole("alert").getByText("There is no device nobody").waitFor();
});

test("phases, devices that go first, rules, hours, a budget and pauses become what the API knows", async () => {
  await open(`#/rollouts/new?release=release-3&devices=${ids(0, 1, 2, 3)}`);
  await page.getByLabel("Name of the roll-out").fill("Everything");
  await page.getByRole("button", { name: "Chosen devices first, the rest a day later" }).click();
  await page.getByLabel("How many").fill("2");
  await page.getByRole("img", { name: /^Phases: 2 chosen devices first at once; The rest / }).waitFor();
  await page.getByLabel("counted in").selectOption("devices");
  await page.getByLabel("More failed than").fill("1");
  await page.getByLabel("within minutes").fill("5");
  await page.getByLabel("then", { exact: true }).selectOption("abort");
  await page.getByText("More: tries, hours, budget, deltas, pauses").click();
  await page.getByLabel("Tries again after a failure").fill("2");
  await page.getByLabel("Install it also where it is installed").check();
  await page.getByLabel("Devices begin at some hours only").check();
  await page.getByLabel("sat", { exact: true }).check();
  await page.getByLabel("From", { exact: true }).fill("00:00");
  await page.getByLabel("to", { exact: true }).fill("23:00");
  await page.getByLabel("MiB an hour").fill("10");
  await page.getByLabel("Devices wait before rebooting").check();
  await beside().getByText("2 devices begin first.").waitFor();
  await accessible(page, "everything filled in");
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("heading", { name: "Everything" }).waitFor();
  const listed = await found("Everything");
  const { data } = await api("GET", `${LIST}/${listed.id}`);
  assert.equal(data.phases.length, 2);
  assert.equal(data.phases[0].batch_size_devices, 2);
  assert.ok(Date.parse(data.phases[1].start_ts) > Date.now());
  assert.equal(data.retries, 2);
  assert.equal(data.force_installation, true);
  assert.deepEqual(data.rust_ota.stop, [{ failed_devices: 1, within_seconds: 300, action: "abort" }]);
  assert.deepEqual(data.rust_ota.windows.open, [{ days: ["sat"], from: "00:00", to: "23:00" }]);
  assert.deepEqual(data.rust_ota.budget, { bytes_per_hour: 10485760 });
  assert.equal(data.rust_ota.canaries.devices.length, 2);
  assert.deepEqual(data.update_control_map.states, { ArtifactReboot_Enter: { action: "pause" } });
  await page.getByText("2 chosen devices first").waitFor();
  await accessible(page, "a roll-out with everything");
  await ended(listed.id);
});

test("a filter is chosen, and ends after so many devices", async () => {
  const answer = await api("POST", "v2/inventory/filters", { name: "Test boxes", terms: [{ scope: "inventory", attribute: "device_type", type: "$eq", value: "testbox" }] });
  assert.equal(answer.status, 201);
  await open("#/rollouts/new?release=release-2");
  await page.getByLabel("Name of the roll-out").fill("By a filter");
  await page.getByLabel("A dynamic group").check();
  await page.getByLabel("Dynamic group", { exact: true }).selectOption("Test boxes");
  await page.getByLabel("Ends after so many devices").fill("3");
  await beside().getByText("3 devices are in it.").waitFor();
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("heading", { name: "By a filter" }).waitFor();
  await page.getByText("dynamic group Test boxes").waitFor();
  const rollout = await found("By a filter");
  assert.equal(rollout.max_devices, 3);
  await ended(rollout.id);
});

test("it is seen without a reload how devices go on, fail and why", async () => {
  const id = await made("Watched", { devices: ids(0, 1, 2, 3) });
  await open(`#/rollouts/${id}`);
  await page.getByText("0 of 4 devices have ended it").waitFor();
  for (const device of devices.slice(0, 4)) assert.equal((await device.next()).status, 200);
  await devices[0].says(id, "installing", "unpacking <b>fast</b>");
  await page.getByRole("cell", { name: "unpacking <b>fast</b>" }).waitFor();
  await devices[0].says(id, "success");
  for (const at of [1, 2]) {
    await devices[at].logs(id, `no space left at offset ${at}000`);
    await devices[at].says(id, "failure");
  }
  await page.getByText("3 of 4 devices have ended it (75 %), 1 with success.").waitFor();
  await page.getByRole("img", { name: /1 of 4 devices succeeded, 2 failed or ended otherwise/ }).waitFor();
  const causes = page.getByRole("table", { name: "Failures by what the devices have said" });
  const cause = causes.getByRole("row").filter({ hasText: "no space left at offset" });
  await cause.getByRole("cell", { name: "2", exact: true }).waitFor();
  await page.getByText("All 2 devices that failed").waitFor();
  await cause.getByRole("button", { name: "Read one" }).click();
  await page.getByRole("dialog", { name: "Log of the device" }).getByText("error: no space left at offset").waitFor();
  await accessible(page, "a log");
  await page.keyboard.press("Escape");
  await page.getByLabel("Status").selectOption("failure");
  await page.waitForURL(/status=failure/);
  await page.getByText("2 devices", { exact: true }).waitFor();
  await page.getByRole("table", { name: "Devices of the roll-out" }).getByRole("link", { name: "S1" }).waitFor();
  await accessible(page, "a roll-out that runs");
  await devices[3].says(id, "success");
  await page.getByRole("link", { name: "Retry the 2 devices that failed" }).waitFor();
});

test("those that have failed are tried again", async () => {
  const { id } = await found("Watched");
  await open(`#/rollouts/${id}`);
  await page.getByRole("link", { name: "Retry the 2 devices that failed" }).click();
  await page.getByText("For the 2 devices that failed in").waitFor();
  await beside().getByText("2 devices are in it.").waitFor();
  assert.equal(await page.getByLabel("Name of the roll-out").inputValue(), "Watched, again");
  await page.getByRole("button", { name: "Roll out" }).click();
  await page.getByRole("heading", { name: "Watched, again" }).waitFor();
  const again = await found("Watched, again");
  const { data } = await api("GET", `${LIST}/${again.id}/device_list`);
  assert.deepEqual(data.sort(), ids(1, 2).sort());
  assert.equal(again.artifact_name, "release-2");
  await ended(again.id);
});

test("it is held, goes on and is aborted by whoever says yes", async () => {
  const id = await made("Steered", { devices: ids(0, 1) });
  await open(`#/rollouts/${id}`);
  await page.getByRole("button", { name: "Hold" }).click();
  await accessible(page, "a question");
  await page.getByRole("dialog").getByRole("button", { name: "Hold" }).click();
  await page.getByText("It is held: held by a person.").waitFor();
  assert.equal((await devices[0].next()).status, 204);
  await page.getByRole("button", { name: "Let it go on" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Let it go on" }).click();
  await page.getByRole("button", { name: "Hold" }).waitFor();
  await page.getByRole("button", { name: "Abort" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  assert.equal((await api("GET", `${LIST}/${id}`)).data.status, "pending");
  await page.getByRole("button", { name: "Abort" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Abort" }).click();
  await page.getByText("ended early").waitFor();
  assert.equal((await api("GET", `${LIST}/${id}`)).data.status, "finished");
});

test("what somebody else has changed meanwhile is not changed unseen", async () => {
  const id = await made("Of two", { devices: ids(0, 1) });
  await open(`#/rollouts/${id}`);
  await page.getByRole("button", { name: "Abort" }).click();
  await api("PUT", `${LIST}/${id}/status`, { status: "held" });
  await page.getByRole("dialog").getByRole("button", { name: "Abort" }).click();
  await page.getByRole("dialog").getByRole("alert").getByText("Somebody else, or a stop rule, has changed it meanwhile").waitFor();
  assert.notEqual((await api("GET", `${LIST}/${id}`)).data.status, "finished");
  await page.keyboard.press("Escape");
  await page.getByText("It is held: held by a person.").waitFor();
  await ended(id);
});

test("a rule that has stopped it is named", async () => {
  const id = await made("By a rule", { devices: ids(0, 1, 2), rust_ota: { stop: [{ failed_devices: 0, action: "abort" }] } });
  assert.equal((await devices[0].next()).status, 200);
  await devices[0].says(id, "failure", "it broke");
  await open(`#/rollouts/${id}`);
  await page.getByText("It was stopped: 1 device has failed, more than 0.").waitFor();
  await page.getByText("When more than 0 devices have failed, it is aborted.").waitFor();
  await page.getByRole("table", { name: "Failures by what the devices have said" }).getByText("it broke").waitFor();
  await accessible(page, "stopped by a rule");
});

test("why a device has not got it is one click away, and it can be ended for one device", async () => {
  const id = await made("One of them", { devices: ids(0, 4) });
  await open(`#/rollouts/${id}`);
  const row = (at) => page.getByRole("row").filter({ has: page.getByRole("link", { name: `S${at}` }) });
  await row(4).getByRole("button", { name: "Why not yet" }).click();
  await page.getByRole("dialog").getByText(/artifact .* is for device_type testbox, the device has other/i).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await row(4).getByRole("button", { name: "End" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "End it for the device" }).click();
  await row(4).getByText("aborted").waitFor();
  assert.equal((await devices[0].next()).status, 200);
  await devices[0].says(id, "success");
  await page.getByText("2 of 2 devices have ended it").waitFor();
});

test("devices that no artifact fits are counted, and shown", async () => {
  const id = await made("Not for all", { devices: ids(0, 4) });
  assert.equal((await devices[4].next()).status, 204);
  await open(`#/rollouts/${id}`);
  await page.getByText("1 device got nothing, because no artifact of the release fits.").waitFor();
  await page.getByRole("link", { name: "Show which" }).click();
  await page.waitForURL(/status=noartifact/);
  await page.getByText("1 device", { exact: true }).waitFor();
  await ended(id);
});

test("devices that wait are let go on", async () => {
  const id = await made("Paused", { devices: ids(0), update_control_map: { priority: 1, states: { ArtifactReboot_Enter: { action: "pause" } } } });
  assert.equal((await devices[0].next()).status, 200);
  await devices[0].says(id, "pause_before_rebooting");
  await open(`#/rollouts/${id}`);
  await page.getByText("1 device waits before rebooting.").waitFor();
  await page.getByLabel("Devices wait before rebooting").uncheck();
  await page.getByRole("button", { name: "Save the pauses" }).click();
  await page.getByText("Devices are told when they ask next.").waitFor();
  const { data } = await api("GET", `${LIST}/${id}`);
  assert.deepEqual(data.update_control_map, { priority: 1, states: { ArtifactReboot_Enter: { action: "continue" } } });
  await ended(id);
});

test("the list is filtered by the server, and the filter stands in the address", async () => {
  await open("#/rollouts");
  await page.getByText("None runs at the moment.").waitFor();
  await page.getByRole("link", { name: /^Finished/ }).click();
  await page.getByRole("link", { name: "Steered" }).waitFor();
  await page.getByLabel("Name or release").fill("By a");
  await page.waitForURL(/search=By/);
  await page.getByText("2 roll-outs", { exact: true }).waitFor();
  await page.reload();
  await page.getByText("2 roll-outs", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Made" }).click();
  await page.waitForURL(/sort=asc/);
  await page.getByRole("table").getByRole("link").first().and(page.getByText("By a filter")).waitFor();
  await page.getByLabel("Type").selectOption("configuration");
  await page.getByText("No roll-out is like that.").waitFor();
  await page.getByRole("link", { name: "Show all" }).click();
  await page.getByRole("link", { name: "Steered" }).waitFor();
  await accessible(page, "roll-outs");
});

test("a roll-out that has ended is asked for once", async () => {
  const { id } = await found("Steered");
  let asked = 0;
  const count = (request) => {
    if (request.url().endsWith(id)) asked += 1;
  };
  page.on("request", count);
  await open(`#/rollouts/${id}`);
  await page.getByText("ended early").waitFor();
  await page.getByRole("table", { name: "Devices of the roll-out" }).waitFor();
  await open("#/rollouts");
  await page.getByRole("heading", { name: "Roll-outs" }).waitFor();
  page.off("request", count);
  assert.equal(asked, 1);
});

test("what needs a person is named on the overview, however old it is", async () => {
  const oldest = await made("The oldest", { devices: ids(4) });
  await api("PUT", `${LIST}/${oldest}/status`, { status: "held" });
  const others = [];
  for (let at = 0; at < 11; at += 1) others.push(await made(`Newer ${at}`, { devices: ids(4) }));
  const subject = { name: "/", type: "diskusage", status: "full", details: {} };
  await devices[0].ask("POST", "v1/devicemonitor/alert", [{ name: "disk is full", level: "CRITICAL", subject, timestamp: new Date().toISOString() }]);
  await open("#/");
  const person = page.getByRole("region", { name: "Needs a person" });
  await person.getByText("Roll-out The oldest is held").waitFor();
  await page.getByText("The newest of each state, of 12 in all.").waitFor();
  await accessible(page, "the overview of many roll-outs");
  await person.getByRole("link", { name: "1 device" }).click();
  await page.getByText("1 device", { exact: true }).waitFor();
  for (const id of [oldest, ...others]) await ended(id);
});

test("an address that leads nowhere says so", async () => {
  await open("#/rollouts/00000000-0000-4000-8000-000000000000");
  await page.getByRole("heading", { name: "There is no such roll-out" }).waitFor();
});

test("the curve before one has looked is made of the times of devices", async () => {
  const points = await page.evaluate(async () => {
    const { before, withPoint, MOST_POINTS } = await import("/page/pages/curve.js");
    let many = [];
    for (let at = 0; at < 1000; at += 1) many = withPoint(many, { time: at, good: at, bad: 0 });
    return {
      // Two of four devices are known; they stand for all four.
      half: before([{ time: 30, isGood: true }, { time: 10, isGood: true }, { time: 20, isGood: false }], 4, 1),
      kept: many.length <= MOST_POINTS,
      ends: [many[0].time, many.at(-1).time],
      same: withPoint([{ time: 1, good: 1, bad: 0 }, { time: 2, good: 1, bad: 0 }], { time: 3, good: 1, bad: 0 }).map((point) => point.time),
    };
  });
  assert.deepEqual(points.half, [{ time: 10, good: 2, bad: 0 }, { time: 20, good: 2, bad: 1 }, { time: 30, good: 4, bad: 1 }]);
  assert.ok(points.kept, "what is kept is bounded");
  assert.deepEqual(points.ends, [0, 999]);
  assert.deepEqual(points.same, [1, 3]);
});

test("failures are one cause when only numbers and ids differ", async () => {
  const groups = await page.evaluate(async () => {
    const { grouped } = await import("/page/pages/failures.js");
    const line = (text) => `2026-01-02T03:04:05Z info: begun\n2026-01-02T03:04:06Z error: ${text}\n2026-01-02T03:04:07Z info: cleaned up\n`;
    return grouped([
      { id: "a", log: line("block 17 of 6a39879e-ed9c-48c2-b1d0-589c5fbca655 is bad") },
      { id: "b", log: line("block 4711 of 00000000-ed9c-48c2-b1d0-589c5fbca655 is bad") },
      { id: "c", substate: "lost power" },
      { id: "d" },
    ]).map(({ words, devices }) => [words, devices]);
  });
  assert.deepEqual(groups[0], ["error: block 17 of 6a39879e-ed9c-48c2-b1d0-589c5fbca655 is bad", ["a", "b"]]);
  assert.equal(groups.length, 3);
  assert.ok(groups.some(([words, list]) => words === "It has said nothing about it." && list[0] === "d"));
});

test("in the dark and on a phone it is readable as well", async () => {
  const { id } = await found("Everything");
  for (const options of [{ colorScheme: "dark" }, { viewport: { width: 390, height: 800 } }]) {
    const other = await browser.page(options);
    await logIn(server, other);
    for (const [hash, shown] of [["#/rollouts?tab=all&sort=asc", "Everything"], [`#/rollouts/${id}`, "2 chosen devices first"], ["#/rollouts/new?release=release-2", "Choose which devices it is for."]]) {
      await other.goto(`${server.url}/${hash}`);
      await other.getByText(shown).first().waitFor();
      await accessible(other, `${hash} ${JSON.stringify(options)}`);
      const width = await other.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(width <= 0, `${hash} is wider than the window by ${width}`);
    }
  }
});

test("whoever may not do something is told so, and can go on with the rest", async () => {
  const other = await browser.page();
  await logIn(server, other);
  const refuse = (path) => other.route(path, (route) => route.fulfill({ status: 403, contentType: "application/json", body: '{"error":"your roles do not allow this"}' }));
  await refuse("**/v2/deployments/deployments/dry_run");
  await refuse("**/v1/inventory/groups");
  await other.goto(`${server.url}/#/rollouts/new?release=release-2`);
  await other.getByLabel("A group").check();
  await other.getByLabel("Group", { exact: true }).fill("lab");
  await other.getByText("Your roles do not let you ask that about these devices.").waitFor();
  await refuse("**/v2/deployments/deployments?**");
  await other.goto(`${server.url}/#/rollouts`);
  await other.getByRole("alert").getByText("your roles do not allow this").waitFor();
  await accessible(other, "not allowed");
});
