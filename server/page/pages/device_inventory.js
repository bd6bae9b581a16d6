// Everything that is known of a device, by where it comes from.

import { html, useState } from "../html.js";
import { remove, segment } from "../api.js";
import { Card, Confirm, Loaded, Table, Time, say } from "../ui.js";
import { counted } from "../words.js";
import { useQuery } from "../route.js";
import { MANAGE_DEVICES, may } from "../permit.js";
import { Search } from "./later.js";
import { Value, keyOf, textOf } from "./attributes.js";

const SCOPES = [
  ["inventory", "Reported by the device"],
  ["identity", "Identity"],
  ["system", "Known to the server"],
  ["monitor", "Said by its monitors"],
  ["tags", "Said by people"],
];

export function Inventory({ id, route, group, reported, reload }) {
  const [query, change] = useQuery(route);
  const [asked, setAsked] = useState(false);
  const text = (query.find ?? "").toLowerCase();
  const isFound = (one) => `${one.name} ${textOf(one.value)} ${one.description ?? ""}`.toLowerCase().includes(text);
  return html`
    <div class="filters">
      <${Search} label="Search" text=${query.find} onText=${(find) => change({ find })} />
      ${may(MANAGE_DEVICES, { group }) && html`<button type="button" class="danger" onClick=${() => setAsked(true)}>Forget what it has reported</button>`}
    </div>
    <${Loaded} of=${reported}>${({ data }) => {
      const found = data.attributes.filter(isFound);
      if (text && found.length === 0) return html`<p class="empty">Nothing of this device has “${query.find}” in it.</p>`;
      return html`
        <p class="quiet" role="status">${counted(found.length, "attribute")}; it has reported last <${Time} at=${data.updated_ts} />.</p>
        ${SCOPES.map(([scope, title]) => {
          const rows = found.filter((one) => one.scope === scope);
          if (rows.length === 0 && (text || scope !== "inventory")) return null;
          return html`<${Card} title=${title} key=${scope}>
            <${Table} caption=${`${title}: attributes`} rows=${rows} keyOf=${(one) => one.name} empty="It has reported nothing yet. A client reports when it starts, and then as often as its configuration says."
              columns=${[
                { title: "Name", show: (one) => one.name },
                { title: "Value", show: (one) => html`<span><${Value} name=${keyOf(one)} value=${one.value} />${one.description && html`<br /><small class="quiet">${one.description}</small>`}</span>` },
                ...(scope === "inventory" ? [{ title: "Said", show: (one) => html`<${Time} at=${one.timestamp} none="–" />` }] : []),
              ]} />
          <//>`;
        })}
      `;
    }}<//>
    ${asked &&
    html`<${Confirm} title="Forget what the device has reported?" name="Forget" close=${() => setAsked(false)}
      send=${async () => { await remove(`v1/inventory/devices/${segment(id)}`); say("It is forgotten until the device reports again."); reload(); }}>
      <p>Searches by these attributes do not find it until it reports again.</p>
    <//>`}
  `;
}
