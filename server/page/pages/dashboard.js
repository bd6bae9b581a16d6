// The overview: what runs, what goes well, and what waits for a person.

import { html } from "../html.js";
import { get, post } from "../api.js";
import { Bar, Card, Loaded, Page, Table, Time, useLoad } from "../ui.js";
import { counted, number, percent } from "../words.js";
import { to } from "../route.js";
import { ReleaseOf, StateOf, progressParts } from "./progress.js";

const OFTEN = 5000;
const SELDOM = 30000;
const DAY = 86400 * 1000;
/** Versions that are counted one by one: each is a question to the store. */
const VERSIONS = 8;

const count = async (filters, signal) =>
  (await post("v2/inventory/filters/search", { filters, per_page: 1, page: 1 }, { signal })).total ?? 0;

const ACCEPTED = { scope: "identity", attribute: "status", type: "$eq", value: "accepted" };
const heardSince = (time) => ({ scope: "system", attribute: "check_in_time", type: "$gte", value: new Date(time).toISOString() });

async function fleet(signal) {
  const [states, heard] = await Promise.all([
    get("v2/inventory/statistics", undefined, { signal }),
    count([ACCEPTED, heardSince(Date.now() - DAY)], signal),
  ]);
  const all = (status) => Object.values(states.data.devices_by_status?.[status] ?? {}).reduce((sum, one) => sum + one, 0);
  return { accepted: all("accepted"), pending: all("pending"), rejected: all("rejected"), heard };
}

/** How many devices have each of the newest releases; the rest has another, or has said none. */
async function versions(signal) {
  const releases = await get("v2/deployments/deployments/releases", { sort: "modified:desc", per_page: VERSIONS }, { signal });
  const named = (value) => [ACCEPTED, { scope: "inventory", attribute: "artifact_name", type: "$eq", value }];
  const counts = await Promise.all(releases.data.map((release) => count(named(release.name), signal)));
  const all = await count([ACCEPTED], signal);
  const rows = releases.data.map((release, at) => ({ name: release.name, count: counts[at] })).filter((row) => row.count > 0);
  const rest = all - rows.reduce((sum, row) => sum + row.count, 0);
  return { all, rows: rest > 0 ? [...rows, { name: null, count: rest }] : rows };
}

async function rollouts(signal) {
  const list = (status) => get("v2/deployments/deployments", { status, per_page: 10, sort: "desc" }, { signal });
  const [running, pending, scheduled, finished] = await Promise.all([
    list("inprogress"),
    list("pending"),
    list("scheduled"),
    get("v2/deployments/deployments", { status: "finished", per_page: 5, sort: "desc" }, { signal }),
  ]);
  return { active: [...running.data, ...pending.data, ...scheduled.data], finished: finished.data };
}

export function Dashboard() {
  const devices = useLoad(fleet, [], { every: SELDOM });
  const software = useLoad(versions, [], { every: SELDOM });
  const orders = useLoad(rollouts, [], { every: OFTEN });
  return html`
    <${Page} title="Overview" actions=${html`<a class="button main" href="#/rollouts/new">New roll-out</a>`}>
      <${Loaded} of=${devices}>${(data) => html`<${First} devices=${data} />`}<//>
      <div class="cards">
        <${Card} title="Needs a person">
          <${Loaded} of=${devices}>${(data) => html`<${Wanted} devices=${data} active=${orders.data?.active ?? []} />`}<//>
        <//>
        <${Card} title="Devices">
          <${Loaded} of=${devices}>${(data) => html`
            <span class="big">${number(data.accepted)}</span>
            <p><a href=${to(["devices"], { status: "accepted" })}>accepted</a>, of which ${number(data.heard)} were heard of in the last 24 hours
              (${percent(data.heard, data.accepted)})</p>
            <${Bar} label="Devices heard of in the last 24 hours" parts=${[
              { name: "heard of", count: Math.min(data.heard, data.accepted), kind: "good" },
              { name: "silent", count: Math.max(0, data.accepted - data.heard), kind: "wait" },
            ]} />
          `}<//>
        <//>
        <${Card} title="Software on the fleet">
          <${Loaded} of=${software}>${(data) => html`
            <${Table} caption="Devices by the release that they run" keyOf=${(row) => row.name ?? "other"} rows=${data.rows}
              empty="No accepted device has said what it runs."
              columns=${[
                { title: "Release", show: (row) => row.name ?? html`<span class="quiet">another, or not said</span>` },
                { title: "Devices", number: true, show: (row) => `${number(row.count)} (${percent(row.count, data.all)})` },
              ]} />
          `}<//>
        <//>
        <${Card} title="Roll-outs that run" wide>
          <${Loaded} of=${orders}>${(data) => html`
            <${Rollouts} caption="Roll-outs that run" rows=${data.active} empty="None runs." />
          `}<//>
        <//>
        <${Card} title="Roll-outs that ended last" wide actions=${html`<a href="#/rollouts">All roll-outs</a>`}>
          <${Loaded} of=${orders}>${(data) => html`
            <${Rollouts} caption="Roll-outs that ended last" rows=${data.finished} empty="None yet." />
          `}<//>
        <//>
      </div>
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

/** What a new server says first: how a device and an update come in. */
function First({ devices }) {
  if (devices.accepted + devices.pending + devices.rejected > 0) return null;
  return html`
    <${Card} title="First steps">
      <ol>
        <li>On a device, set <code>ServerURL</code> to <code>${location.origin}</code> in its configuration, and start its client. It appears under <a href="#/devices">Devices</a> and waits there.</li>
        <li>Accept it.</li>
        <li>Upload an artifact under <a href="#/releases">Releases</a>.</li>
        <li>Make a <a href="#/rollouts/new">roll-out</a>.</li>
      </ol>
    <//>
  `;
}

function Wanted({ devices, active }) {
  const held = active.filter((one) => one.held);
  const lines = [];
  if (devices.pending > 0) {
    lines.push(html`<li><a href=${to(["devices"], { status: "pending" })}>${counted(devices.pending, "device")}</a> ${devices.pending === 1 ? "waits" : "wait"} to be accepted</li>`);
  }
  for (const one of held) lines.push(html`<li>Roll-out <a href=${to(["rollouts", one.id])}>${one.name}</a> is held</li>`);
  return lines.length ? html`<ul>${lines}</ul>` : html`<p class="quiet">Nothing.</p>`;
}
