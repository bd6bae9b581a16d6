// What the monitors on a device say.

import { html } from "../html.js";
import { get, segment } from "../api.js";
import { Card, Loaded, Pager, Status, Table, Time, useLoad, usePages } from "../ui.js";
import { pageIn, useQuery } from "../route.js";
import { textOf } from "./attributes.js";

const OFTEN = 5000;
const SELDOM = 30000;
const PER_PAGE = 20;
/** Alerts of which a device is said to have the last one: all of them. */
const LATEST = 50;

const COLUMNS = [
  { title: "Alert", show: (one) => one.name },
  { title: "Level", show: (one) => html`<${Status} value=${one.level} />` },
  { title: "About", show: (one) => [one.subject?.type, one.subject?.name].filter(Boolean).join(" ") },
  { title: "State", show: (one) => one.subject?.status },
  { title: "When", show: (one) => html`<${Time} at=${one.timestamp} none=${one.timestamp ?? "not said"} />` },
  { title: "Details", show: (one) => html`<${Details} value=${one.subject?.details} />` },
];

const Details = ({ value }) =>
  value && Object.keys(value).length > 0 ? html`<details><summary>show</summary><pre>${JSON.stringify(value, null, 2)}</pre></details>` : "";

export function Alerts({ id, route }) {
  const [query, change] = useQuery(route);
  const page = pageIn(query);
  const turn = (next) => change({ page: next });
  const path = `v1/devicemonitor/devices/${segment(id)}`;
  const latest = useLoad((signal) => get(`${path}/alerts/latest`, { per_page: LATEST }, { signal }), [id], { every: OFTEN });
  const all = usePages((range, signal) => get(`${path}/alerts`, range, { signal }), [id], { page, perPage: PER_PAGE, turn, every: OFTEN });
  const config = useLoad((signal) => get(`${path}/config`, undefined, { signal }), [id], { every: SELDOM });
  const keyOf = (one) => JSON.stringify([one.name, one.subject?.name, one.subject?.type, one.timestamp, one.level]);
  return html`
    <${Card} title="How it is now">
      <${Loaded} of=${latest}>${({ data }) => html`<${Table} caption="The last alert of each monitor" rows=${data} keyOf=${keyOf} columns=${COLUMNS} empty="No alert has come. A device needs mender-monitor, or a client that sends alerts." />`}<//>
    <//>
    <${Card} title="All alerts">
      <${Loaded} of=${all}>${({ data, total }) => html`
        <${Table} caption="All alerts, the newest first" rows=${data.map((one, at) => ({ ...one, at }))} keyOf=${(one) => `${one.at} ${keyOf(one)}`} columns=${COLUMNS} empty="None." />
        <${Pager} page=${page} perPage=${PER_PAGE} total=${total} what="alerts" onPage=${turn} />
      `}<//>
    <//>
    <${Card} title="Monitors">
      <${Loaded} of=${config}>${({ data }) => html`
        <${Table} caption="Monitors of the device" rows=${data ?? []} keyOf=${(one) => `${one.type} ${one.name}`} empty="The device has not said which monitors it has."
          columns=${[
            { title: "Monitor", show: (one) => one.name },
            { title: "Type", show: (one) => one.type },
            { title: "Status", show: (one) => textOf(one.status) },
          ]} />
      `}<//>
    <//>
  `;
}
