// What a device was to install, and what became of it.

import { html, useState } from "../html.js";
import { get, remove, segment } from "../api.js";
import { Confirm, Dialog, Field, Loaded, Pager, Status, Table, Time, say, useLoad, useSteady } from "../ui.js";
import { to, useQuery } from "../route.js";
import { keep } from "./device_export.js";

const OFTEN = 5000;
const PER_PAGE = 20;
const STATUSES = ["active", "finished", "success", "failure", "aborted", "pending", "downloading", "installing", "rebooting", "already-installed", "noartifact"];

export function Updates({ id, route }) {
  const [query, change] = useQuery(route);
  const [opened, setOpened] = useState();
  const page = Math.max(1, Math.floor(Number(query.page)) || 1);
  const status = STATUSES.includes(query.became) ? query.became : undefined;
  const path = `v1/deployments/deployments/devices/${segment(id)}`;
  const list = useSteady(useLoad((signal) => get(path, { status, page, per_page: PER_PAGE }, { signal }), [id, status, page], { every: OFTEN }));
  const close = () => setOpened(undefined);
  const isOver = (row) => Boolean(row.device.finished);
  return html`
    <div class="filters">
      <${Field} label="What became of it">${(field) => html`
        <select id=${field} value=${status ?? ""} onChange=${(event) => change({ became: event.target.value, page: "" })}>
          <option value="">anything</option>
          ${STATUSES.map((one) => html`<option value=${one} selected=${one === status}>${one}</option>`)}
        </select>`}<//>
      <button type="button" class="danger" onClick=${() => setOpened({ kind: "end" })}>End all that go on</button>
      <button type="button" class="danger" onClick=${() => setOpened({ kind: "clear" })}>Clear the history</button>
    </div>
    <${Loaded} of=${list}>${({ data, total }) => html`
      <${Table} caption="Updates of the device" rows=${data} keyOf=${(row) => row.id} href=${(row) => to(["rollouts", row.deployment.id])}
        empty=${status ? "None of its updates is like that." : "It has not been part of a roll-out yet."}
        columns=${[
          { title: "Roll-out", show: (row) => row.deployment.name },
          { title: "Release", show: (row) => (row.deployment.type === "configuration" ? "configuration" : row.deployment.artifact_name) },
          { title: "State", show: (row) => html`<${Status} value=${row.device.status} />${row.device.substate && html`<br /><small class="quiet">${row.device.substate}</small>`}` },
          { title: "Tries", number: true, show: (row) => row.device.attempts ?? "–" },
          { title: "Began", show: (row) => html`<${Time} at=${row.device.started ?? row.device.created} none="not yet" />` },
          { title: "Ended", show: (row) => html`<${Time} at=${row.device.finished} none="not yet" />` },
          {
            title: "More",
            show: (row) => html`<span class="actions">
              ${row.device.log && html`<button type="button" onClick=${() => setOpened({ kind: "log", row })}>Log</button>`}
              ${!isOver(row) && html`<button type="button" class="danger" onClick=${() => setOpened({ kind: "one", row })}>End</button>`}
            </span>`,
          },
        ]} />
      <${Pager} page=${page} perPage=${PER_PAGE} total=${total} what="updates" onPage=${(wanted) => change({ page: String(wanted) })} />
    `}<//>
    ${opened?.kind === "log" && html`<${Log} device=${id} deployment=${opened.row.deployment} close=${close} />`}
    ${opened?.kind === "one" &&
    html`<${Confirm} title=${`End ${opened.row.deployment.name} on this device?`} name="End" close=${close}
      send=${async () => { await remove(`v1/deployments/deployments/${segment(opened.row.deployment.id)}/devices/${segment(id)}`); list.reload(); }}>
      <p>The device is told when it asks next. What it has begun to install it may still finish or undo by itself.</p>
    <//>`}
    ${opened?.kind === "end" &&
    html`<${Confirm} title="End all updates on this device?" name="End all" close=${close} send=${async () => { await remove(path); list.reload(); }}>
      <p>Every roll-out that goes on ends for this device, and only for it.</p>
    <//>`}
    ${opened?.kind === "clear" &&
    html`<${Confirm} title="Clear the history?" name="Clear" close=${close}
      send=${async () => { await remove(`${path}/history`); say("The history is cleared."); change({ page: "" }); list.reload(); }}>
      <p>What has ended is taken out of this list. What goes on stays in it; the roll-outs keep their records and their counters.</p>
    <//>`}
  `;
}

/** What a device has logged; also of use where a roll-out is shown. */
export function Log({ device, deployment, close }) {
  const log = useLoad(
    (signal) => get(`v1/deployments/deployments/${segment(deployment.id)}/devices/${segment(device)}/log`, undefined, { signal }),
    [device, deployment.id],
  );
  return html`
    <${Dialog} title=${`Log of ${deployment.name}`} close=${close}>
      <${Loaded} of=${log}>${({ data }) => html`<pre tabindex="0" aria-label="Log">${String(data) || "It is empty."}</pre>`}<//>
      <div class="actions">
        ${log.data && html`<button type="button" onClick=${() => keep(new Blob([String(log.data.data)], { type: "text/plain" }), `${device}-${deployment.name}.log`)}>Save</button>`}
        <button type="button" class="main" onClick=${close}>Close</button>
      </div>
    <//>
  `;
}
