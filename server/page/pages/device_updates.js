// What a device was to install, and what became of it.

import { html, useState } from "../html.js";
import { get, remove, segment } from "../api.js";
import { Choice, Confirm, Loaded, Pager, Status, Table, Time, say, usePages } from "../ui.js";
import { pageIn, to, useQuery } from "../route.js";
import { DEPLOY, may } from "../permit.js";
import { Log } from "./log.js";

const OFTEN = 5000;
const PER_PAGE = 20;
const STATUSES = ["active", "finished", "success", "failure", "aborted", "pending", "downloading", "installing", "rebooting", "already-installed", "noartifact"];

export function Updates({ id, route, group }) {
  const [query, change] = useQuery(route);
  const [opened, setOpened] = useState();
  const page = pageIn(query);
  const turn = (next) => change({ page: next });
  const status = STATUSES.includes(query.became) ? query.became : undefined;
  const path = `v1/deployments/deployments/devices/${segment(id)}`;
  const list = usePages((range, signal) => get(path, { status, ...range }, { signal }), [id, status], { page, perPage: PER_PAGE, turn, every: OFTEN });
  const close = () => setOpened(undefined);
  const isOver = (row) => Boolean(row.device.finished);
  return html`
    <div class="filters">
      <${Choice} label="What became of it" value=${status} options=${[["", "anything"], ...STATUSES]} onChoice=${(became) => change({ became, page: "" })} />
      ${may(DEPLOY, { group }) &&
      html`<button type="button" class="danger" onClick=${() => setOpened({ kind: "end" })}>End all that go on</button>
        <button type="button" class="danger" onClick=${() => setOpened({ kind: "clear" })}>Clear the history</button>`}
    </div>
    <${Loaded} of=${list}>${({ data, total }) => html`
      <${Table} caption="Updates of the device" rows=${data} keyOf=${(row) => row.id} href=${(row) => to(["rollouts", row.deployment.id])}
        empty=${status ? "None of its updates is like that." : "It has not been part of a roll-out yet."}
        columns=${[
          { title: "Roll-out", show: (row) => row.deployment.name },
          { title: "Release", show: (row) => (row.deployment.type === "configuration" ? "configuration" : row.deployment.artifact_name) },
          { title: "State", show: (row) => html`<span><${Status} value=${row.device.status} />${row.device.substate && html`<br /><small class="quiet">${row.device.substate}</small>`}</span>` },
          { title: "Tries", number: true, show: (row) => row.device.attempts ?? "–" },
          { title: "Began", show: (row) => html`<${Time} at=${row.device.started ?? row.device.created} none="not yet" />` },
          { title: "Ended", show: (row) => html`<${Time} at=${row.device.finished} none="not yet" />` },
          {
            title: "More",
            show: (row) => html`<span class="actions">
              ${row.device.log && html`<button type="button" onClick=${() => setOpened({ kind: "log", row })}>Log</button>`}
              ${!isOver(row) && may(DEPLOY) && html`<button type="button" class="danger" onClick=${() => setOpened({ kind: "one", row })}>End</button>`}
            </span>`,
          },
        ]} />
      <${Pager} page=${page} perPage=${PER_PAGE} total=${total} what="updates" onPage=${turn} />
    `}<//>
    ${opened?.kind === "log" && html`<${Log} device=${id} deployment=${opened.row.deployment} title=${`Log of ${opened.row.deployment.name}`} close=${close} />`}
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
