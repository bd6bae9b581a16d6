// What a device is to be configured with, beside what it says it is.

import { html, useState } from "../html.js";
import { get, post, put, segment, unlessChanged } from "../api.js";
import { Act, Card, Dialog, Field, Form, Loaded, Note, Status, Table, Time, changed, say, useLoad } from "../ui.js";
import { to } from "../route.js";
import { CONFIGURE, may } from "../permit.js";
import { named } from "./attributes.js";

const OFTEN = 5000;
/** Settings of one device, as the server has it. */
const MOST_SETTINGS = 256;

export function Configuration({ id, group }) {
  const path = `v1/deviceconfig/configurations/device/${segment(id)}`;
  const [began, setBegan] = useState();
  const known = useLoad((signal) => get(path, undefined, { signal }), [id], { every: OFTEN });
  const deploy = async () => {
    const { data } = await post(`${path}/deploy`, {});
    say("The configuration is deployed: the device gets it when it asks next.");
    known.reload();
    return data.deployment_id;
  };
  return html`<${Loaded} of=${known}>${({ data }) => {
    const wanted = data.configured ?? {};
    const said = data.reported ?? {};
    const names = [...new Set([...Object.keys(wanted), ...Object.keys(said)])].sort();
    const isSame = Object.keys(wanted).every((name) => wanted[name] === said[name]);
    return html`
      <${Card} title="Configuration" actions=${may(CONFIGURE, { group }) && html`
        <button type="button" class="main" onClick=${() => setBegan(wanted)}>Change</button>
        <${Act} disabled=${Object.keys(wanted).length === 0} act=${deploy}>Deploy again<//>
      `}>
        <p class="actions">
          ${Object.keys(wanted).length > 0 && html`<${Status} value=${isSame ? "success" : "pending"}>${isSame ? "the device says it is so" : "the device says otherwise"}<//>`}
          <span class="quiet">changed <${Time} at=${data.updated_ts} />, said by the device <${Time} at=${data.reported_ts} /></span>
          ${data.deployment_id && html`<a href=${to(["rollouts", data.deployment_id])}>Its last roll-out</a>`}
        </p>
        <${Table} caption="Settings" rows=${names} keyOf=${(name) => name}
          empty="Nothing is configured, and the device has said nothing. A device needs mender-configure, or a client that can be configured."
          columns=${[
            { title: "Name", show: (name) => name },
            { title: "Wanted", show: (name) => wanted[name] ?? html`<span class="quiet">–</span>` },
            { title: "Said by the device", show: (name) => said[name] ?? html`<span class="quiet">–</span>` },
            { title: "Compared", show: (name) => html`<${Compared} wanted=${wanted[name]} said=${said[name]} />` },
          ]} />
      <//>
      ${began && html`<${Editor} path=${path} began=${began} close=${() => setBegan(undefined)} saved=${known.reload} deploy=${deploy} />`}
    `;
  }}<//>`;
}

function Compared({ wanted, said }) {
  if (wanted === undefined) return html`<span class="quiet">not set here</span>`;
  const isSame = wanted === said;
  return html`<${Status} value=${isSame ? "success" : "pending"}>${isSame ? "same" : "differs"}<//>`;
}

function Editor({ path, began, close, saved, deploy }) {
  const [rows, setRows] = useState(() => {
    const known = Object.entries(began).map(([name, value]) => ({ name, value }));
    return known.length ? known : [{ name: "", value: "" }];
  });
  const [isDeployed, setDeployed] = useState(true);
  const change = (at, members) => setRows(changed(rows, at, members));
  const save = async () => {
    const filled = rows.map((row) => ({ ...row, name: row.name.trim() })).filter((row) => row.name || row.value);
    named(filled, "setting");
    const wanted = Object.fromEntries(filled.map((row) => [row.name, row.value]));
    try {
      await unlessChanged(path, {
        began,
        wanted,
        of: (one) => one.configured ?? {},
        words: "Somebody else has changed the configuration since you began, so nothing was saved. Cancel to see it, and begin again.",
        send: (etag) => put(path, wanted, { etag }),
      });
    } catch (error) {
      saved();
      throw error;
    }
    if (isDeployed) await deploy();
    else say("The configuration is saved, and not deployed.");
    saved();
    close();
  };
  return html`
    <${Dialog} title="Configuration of the device" close=${close}>
      <${Form} name=${isDeployed ? "Save and deploy" : "Save"} send=${save} cancel=${close}>
        ${rows.map(
          (row, at) => html`<fieldset class="filters" key=${at}>
            <legend class="unseen">Setting ${at + 1}</legend>
            <${Field} label="Name" maxlength="256" value=${row.name} onInput=${(event) => change(at, { name: event.target.value })} />
            <${Field} label="Value" maxlength="4096" value=${row.value} onInput=${(event) => change(at, { value: event.target.value })} />
            <button type="button" onClick=${() => setRows(rows.filter((_, other) => other !== at))} aria-label=${`Take setting ${at + 1} away`}>✕</button>
          </fieldset>`,
        )}
        ${rows.length < MOST_SETTINGS
          ? html`<p><button type="button" onClick=${() => setRows([...rows, { name: "", value: "" }])}>Another setting</button></p>`
          : html`<${Note}>A device has up to ${MOST_SETTINGS} settings.<//>`}
        <p class="check"><input type="checkbox" id="deploy-too" checked=${isDeployed} onChange=${(event) => setDeployed(event.target.checked)} />
          <label for="deploy-too">Deploy it, so that the device gets it when it asks next</label></p>
      <//>
    <//>
  `;
}
