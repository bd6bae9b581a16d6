// Programs of others that are told what happens to devices.

import { html, useState } from "../html.js";
import { get, post, remove, segment } from "../api.js";
import { Card, Confirm, Dialog, Field, Form, Loaded, Pager, Status, Table, Time, say, ticked, useLoad, usePages } from "../ui.js";

const PER_PAGE = 20;
const SCOPES = [["deviceauth", "devices that come, are decided about, or go"], ["inventory", "what devices report"]];

export function Webhooks() {
  const list = useLoad((signal) => get("v1/iot-manager/integrations", { per_page: 500 }, { signal }), []);
  const [page, setPage] = useState(1);
  const events = usePages((range, signal) => get("v1/iot-manager/events", range, { signal }), [], { page, perPage: PER_PAGE, turn: setPage, every: 10000 });
  const [making, setMaking] = useState(false);
  const [removing, setRemoving] = useState();
  return html`
    <${Card} title="Webhooks" actions=${html`<button type="button" class="main" onClick=${() => setMaking(true)}>New webhook</button>`}>
      <${Loaded} of=${list}>
        ${({ data }) => html`<${Table} caption="Webhooks" rows=${data} keyOf=${(row) => row.id} empty="Nobody is told."
          columns=${[
            { title: "Address", show: (row) => row.credentials.http?.url },
            { title: "For", show: (row) => row.description },
            { title: "Told of", show: (row) => row.scopes.join(", ") },
            { title: "", show: (row) => html`<button type="button" class="danger" onClick=${() => setRemoving(row)}>Remove</button>` },
          ]} />`}
      <//>
      ${making && html`<${NewWebhook} close=${() => setMaking(false)} done=${() => { setMaking(false); list.reload(); }} />`}
      ${removing &&
      html`<${Confirm} title="Remove the webhook" name="Remove" close=${() => setRemoving()} send=${async () => {
        await remove(`v1/iot-manager/integrations/${segment(removing.id)}`);
        list.reload();
      }}><p>${removing.credentials.http?.url} is told nothing more.</p><//>`}
    <//>
    <${Card} title="What they were told">
      <${Loaded} of=${events}>
        ${({ data, total }) => html`
          <${Table} caption="Events, the newest first" rows=${data} keyOf=${(row) => row.id} empty="Nothing yet."
            columns=${[
              { title: "When", show: (row) => html`<${Time} at=${row.time} />` },
              { title: "What", show: (row) => row.type },
              { title: "Taken", show: (row) => row.delivery_statuses.map((one) => html`<${Status} value=${one.success ? "success" : "failure"}>${one.success ? `taken, ${one.status_code}` : one.error || one.status_code}<//> `) },
              { title: "More", show: (row) => html`<details><summary>Details</summary><pre>${JSON.stringify(row.data, null, 2)}</pre></details>` },
            ]} />
          <${Pager} page=${page} perPage=${PER_PAGE} total=${total} what="events" onPage=${setPage} />
        `}
      <//>
    <//>
  `;
}

function NewWebhook({ close, done }) {
  const [url, setUrl] = useState("");
  const [description, setDescription] = useState("");
  const [secret, setSecret] = useState("");
  const [scopes, setScopes] = useState(new Set(["deviceauth"]));
  const tick = (name, on) => setScopes(ticked(scopes, [name], on));
  return html`
    <${Dialog} title="New webhook" close=${close}>
      <${Form} name="Make it" cancel=${close} ready=${scopes.size > 0} send=${async () => {
        const http = secret ? { url, secret } : { url };
        await post("v1/iot-manager/integrations", { provider: "webhook", description, scopes: [...scopes], credentials: { type: "http", http } });
        say("The webhook is told from now on.");
        done();
      }}>
        <${Field} label="Address" type="url" required placeholder="https://example.com/hook" value=${url} onInput=${(event) => setUrl(event.target.value)} />
        <${Field} label="For" value=${description} onInput=${(event) => setDescription(event.target.value)} />
        <${Field} label="Secret" pattern="([0-9a-fA-F]{2})*" maxlength="64" hint="Hexadecimal digits. What is told is signed with it: X-Men-Signature." value=${secret} onInput=${(event) => setSecret(event.target.value)} />
        <fieldset>
          <legend>Tell it of</legend>
          ${SCOPES.map(([name, words]) => html`<label class="check"><input type="checkbox" checked=${scopes.has(name)} onChange=${(event) => tick(name, event.target.checked)} /> ${words}</label>`)}
        </fieldset>
      <//>
    <//>
  `;
}
