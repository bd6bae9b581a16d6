// The overview: what runs, what goes well, and what waits for a person.

import { html } from "../html.js";
import { get, post } from "../api.js";
import { Bar, Card, Loaded, Page, Table, Time, useLoad } from "../ui.js";
import { counted, number, percent } from "../words.js";
import { to } from "../route.js";
import { DEPLOY, SEE_DEVICES, SEE_RELEASES, SEE_ROLLOUTS, groupsFor, may, maySomewhere } from "../permit.js";
import { ReleaseOf, StateOf, paused, progressParts } from "./progress.js";

const OFTEN = 5000;
const SELDOM = 30000;
const DAY = 86400 * 1000;
/** Devices that are looked at for what is often there. */
const SAMPLE = 200;
/** Versions that are counted one by one: each is a question to the store. */
const VERSIONS = 8;
/** Roll-outs of a status that the table shows. */
const SHOWN = 10;
/** The API cannot ask for those alone that wait for a person: so many of a status are looked through. */
const LOOKED = 500;
/** Of more roll-outs than these an answer is large, and is asked for seldom. */
const FEW = 50;

const count = async (filters, signal) =>
  (await post("v2/inventory/filters/search", { filters, per_page: 1, page: 1 }, { signal })).total ?? 0;

const ALERTED = { scope: "monitor", attribute: "alerts", type: "$eq", value: true };
const ACCEPTED = { scope: "identity", attribute: "status", type: "$eq", value: "accepted" };
const heardSince = (time) => ({ scope: "system", attribute: "check_in_time", type: "$gte", value: new Date(time).toISOString() });

async function fleet(signal) {
  const [states, heard, alerted] = await Promise.all([
    get("v2/inventory/statistics", undefined, { signal }),
    count([ACCEPTED, heardSince(Date.now() - DAY)], signal),
    count([ACCEPTED, ALERTED], signal),
  ]);
  const all = (status) => Object.values(states.data.devices_by_status?.[status] ?? {}).reduce((sum, one) => sum + one, 0);
  return { accepted: all("accepted"), pending: all("pending"), rejected: all("rejected"), heard, alerted };
}

const SOFTWARE = { scope: "inventory", attribute: "artifact_name" };

/**
 * How many devices have which software: of what is there often among some devices, and of the newest releases, each is counted; the
 * rest has another, or has said none.
 */
async function versions(signal) {
  const [releases, some] = await Promise.all([
    get("v2/deployments/deployments/releases", { sort: "modified:desc", per_page: VERSIONS / 2 }, { signal }),
    post("v2/inventory/filters/search", { filters: [ACCEPTED], attributes: [SOFTWARE], per_page: SAMPLE, page: 1 }, { signal }),
  ]);
  const seen = new Map();
  for (const { attributes } of some.data) {
    const name = attributes.find((one) => one.name === SOFTWARE.attribute)?.value;
    if (typeof name === "string") seen.set(name, (seen.get(name) ?? 0) + 1);
  }
  const often = [...seen].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const known = new Set(releases.data.map((release) => release.name));
  const names = [...new Set([...known, ...often])].slice(0, VERSIONS);
  const counts = await Promise.all(names.map((value) => count([ACCEPTED, { ...SOFTWARE, type: "$eq", value }], signal)));
  const all = some.total;
  const rows = names.map((name, at) => ({ name, isRelease: known.has(name), count: counts[at] })).filter((row) => row.count > 0).sort((a, b) => b.count - a.count);
  const rest = all - rows.reduce((sum, row) => sum + row.count, 0);
  return { all, rows: rest > 0 ? [...rows, { name: null, count: rest }] : rows };
}

const ACTIVE = ["inprogress", "pending", "scheduled"];
const listed = (status, many, signal) => get("v2/deployments/deployments", { status, per_page: many, sort: "desc" }, { signal });

async function rollouts(signal) {
  const [finished, ...active] = await Promise.all([listed("finished", 5, signal), ...ACTIVE.map((status) => listed(status, LOOKED, signal))]);
  return {
    active: active.flatMap((one) => one.data.slice(0, SHOWN)),
    total: active.reduce((sum, one) => sum + one.total, 0),
    finished: finished.data,
    waiting: active.flatMap((one) => one.data).filter(waits),
    isPart: active.some((one) => one.total > LOOKED),
  };
}

const pausedIn = ({ statistics }) => paused(statistics.status);
const waits = (one) => one.held || pausedIn(one) > 0;

/** Asked by those only whom the answer is for. */
const forThose = (isFor, load) => async (signal) => (isFor ? load(signal) : null);

export function Dashboard() {
  const hasDevices = may(SEE_DEVICES);
  const hasRollouts = may(SEE_ROLLOUTS);
  const hasSoftware = hasDevices && may(SEE_RELEASES);
  const devices = useLoad(forThose(hasDevices, fleet), [], { every: SELDOM });
  const software = useLoad(forThose(hasSoftware, versions), [], { every: SELDOM });
  const orders = useLoad(forThose(hasRollouts, rollouts), [], { every: (found) => (found?.total > FEW ? SELDOM : OFTEN) });
  return html`
    <${Page} title="Overview" actions=${maySomewhere(DEPLOY) && html`<a class="button main" href="#/rollouts/new">New roll-out</a>`}>
      ${devices.data && orders.data !== undefined && html`<${First} devices=${devices.data} orders=${orders.data} />`}
      <div class="cards">
        <${Own} />
        ${(hasDevices || hasRollouts) &&
        html`<${Card} title="Needs a person">
          <${Loaded} of=${devices}>${(fleet) => html`<${Loaded} of=${orders}>${(found) => html`<${Wanted} devices=${fleet} found=${found} />`}<//>`}<//>
        <//>`}
        ${hasDevices &&
        html`<${Card} title="Devices">
          <${Loaded} of=${devices}>${(data) => html`
            <span class="big">${number(data.accepted)}</span>
            <p><a href=${to(["devices"], { status: "accepted" })}>accepted</a>, of which ${number(data.heard)} were heard of in the last 24 hours
              (${percent(data.heard, data.accepted)})</p>
            <${Bar} label="Devices heard of in the last 24 hours" parts=${[
              { name: "heard of", count: Math.min(data.heard, data.accepted), kind: "good" },
              { name: "silent", count: Math.max(0, data.accepted - data.heard), kind: "wait" },
            ]} />
          `}<//>
        <//>`}
        ${hasSoftware &&
        html`<${Card} title="Software on the fleet">
          <${Loaded} of=${software}>${(data) => html`
            <${Table} caption="Devices by the release that they run" keyOf=${(row) => row.name ?? "other"} rows=${data.rows}
              empty="No accepted device has said what it runs."
              columns=${[
                { title: "Release", show: (row) => (row.isRelease ? html`<a href=${to(["releases", row.name])}>${row.name}</a>` : row.name ?? html`<span class="quiet">another, or not said</span>`) },
                { title: "Devices", number: true, show: (row) => `${number(row.count)} (${percent(row.count, data.all)})` },
              ]} />
            ${data.rows.some((row) => row.name === null) && html`<p class="quiet">Counted one by one are the newest releases, and what is often there.</p>`}
          `}<//>
        <//>`}
        ${hasRollouts &&
        html`<${Card} title="Roll-outs that run" wide>
            <${Loaded} of=${orders}>${(data) => html`
              <${Rollouts} caption="Roll-outs that run" rows=${data.active} empty="None runs." />
              ${data.total > data.active.length && html`<p class="quiet">The newest of each state, of ${number(data.total)} in all. <a href="#/rollouts">All roll-outs</a></p>`}
            `}<//>
          <//>
          <${Card} title="Roll-outs that ended last" wide actions=${html`<a href="#/rollouts?tab=all">All roll-outs</a>`}>
            <${Loaded} of=${orders}>${(data) => html`
              <${Rollouts} caption="Roll-outs that ended last" rows=${data.finished} empty="None yet." />
            `}<//>
          <//>`}
      </div>
    <//>
  `;
}

/** What there is for those who do not see the whole fleet. */
function Own() {
  const groups = groupsFor(SEE_DEVICES);
  if (may(SEE_DEVICES) && may(SEE_ROLLOUTS)) return null;
  return html`
    <${Card} title="What you see">
      ${groups
        ? html`<p>Your roles let you see the devices of ${groups.length === 1 ? "this group" : "these groups"}:</p>
            <ul>${groups.map((group) => html`<li key=${group}><a href=${to(["devices"], { group })}>${group}</a></li>`)}</ul>`
        : html`<p>Your roles let you see a part of this server: what is in the menu. Whoever manages people can change them.</p>`}
    <//>
  `;
}

const Rollouts = ({ caption, rows, empty }) => html`
  <${Table} caption=${caption} rows=${rows} empty=${empty} keyOf=${(row) => row.id} href=${(row) => to(["rollouts", row.id])}
    columns=${[
      { title: "Name", show: (row) => row.name },
      { title: "Release", show: (row) => html`<${ReleaseOf} rollout=${row} />` },
      { title: "State", show: (row) => html`<${StateOf} rollout=${row} />` },
      { title: "Devices", show: (row) => html`<${Bar} parts=${progressParts(row)} />` },
      { title: "Made", show: (row) => html`<${Time} at=${row.created} />` },
    ]} />
`;

/** What a new server says until there is a roll-out: how a device and an update come in. */
function First({ devices, orders }) {
  const hasOrders = orders === null || orders.total + orders.finished.length > 0;
  if (hasOrders && devices.accepted + devices.pending + devices.rejected > 0) return null;
  return html`
    <${Card} title="First steps">
      <ol>
        <li>On a device, set <code>ServerURL</code> to <code>${location.origin}</code> in its configuration, and start its client. It appears under <a href="#/devices">Devices</a> and waits there.
          Without a board, <code>cargo xtask device DIR --server ${location.origin}</code> in the source of rust-ota makes a device of files.</li>
        <li>Accept it${devices.accepted > 0 && html` <span class="status good">done</span>`}.</li>
        <li>Upload an artifact under <a href="#/releases">Releases</a>.</li>
        <li>Make a <a href="#/rollouts/new">roll-out</a>.</li>
      </ol>
    <//>
  `;
}

/** Lines that are shown; a fleet in trouble has more. */
const LINES = 8;

function Wanted({ devices, found }) {
  const rollouts = found?.waiting ?? [];
  const lines = [];
  if (devices?.pending > 0) {
    lines.push(html`<li><a href=${to(["devices"], { status: "pending" })}>${counted(devices.pending, "device")}</a> ${devices.pending === 1 ? "waits" : "wait"} to be accepted</li>`);
  }
  if (devices?.alerted > 0) {
    const address = to(["devices"], { status: "accepted", f: JSON.stringify([["monitor/alerts", "$eq", true]]) });
    lines.push(html`<li><a href=${address}>${counted(devices.alerted, "device")}</a> ${devices.alerted === 1 ? "has" : "have"} an alert</li>`);
  }
  for (const one of rollouts.slice(0, LINES)) {
    const name = html`Roll-out <a href=${to(["rollouts", one.id])}>${one.name}</a>`;
    lines.push(one.held ? html`<li key=${one.id}>${name} is held</li>` : html`<li key=${one.id}>${name}: ${counted(pausedIn(one), "device")} ${pausedIn(one) === 1 ? "waits" : "wait"} to go on</li>`);
  }
  return html`
    ${lines.length ? html`<ul>${lines}</ul>` : html`<p class="quiet">Nothing.</p>`}
    ${rollouts.length > LINES && html`<p class="quiet">and ${counted(rollouts.length - LINES, "roll-out")} more: <a href="#/rollouts?tab=all">all roll-outs</a></p>`}
    ${found?.isPart && html`<p class="quiet">Of each state, the newest ${number(LOOKED)} roll-outs were looked at.</p>`}
  `;
}
