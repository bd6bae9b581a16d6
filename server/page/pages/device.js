// One device: who it is, what it has reported and got, and what can be done with it.

import { html, useState } from "../html.js";
import { get, post, remove, segment } from "../api.js";
import { Act, Confirm, Loaded, Note, Page, Status, Tabs, Time, say, useLoad } from "../ui.js";
import { go } from "../route.js";
import { CONNECT, MANAGE_DEVICES, WAKE, may } from "../permit.js";
import { GROUP, nameOf, textOf, valueOf } from "./attributes.js";
import { Overview } from "./device_overview.js";
import { Inventory } from "./device_inventory.js";
import { Updates } from "./device_updates.js";
import { Configuration } from "./device_configuration.js";
import { Alerts } from "./device_alerts.js";
import { Files, Ports } from "./device_files.js";
import { Terminal } from "./terminal.js";

const OFTEN = 5000;
const SELDOM = 15000;

/** Parts, and what one has to be allowed for some of them. */
const TABS = [
  ["overview", "Overview", Overview],
  ["inventory", "Inventory", Inventory],
  ["updates", "Updates", Updates],
  ["configuration", "Configuration", Configuration],
  ["alerts", "Alerts", Alerts],
  ["terminal", "Terminal", Terminal, CONNECT],
  ["files", "Files", Files, CONNECT],
  ["ports", "Ports", Ports, CONNECT],
];

const CONNECTION = { connected: "connected", disconnected: "not connected", unknown: "not connected" };

export function Device({ route }) {
  const id = route.path[1];
  const [asked, setAsked] = useState();
  const device = useLoad((signal) => get(`v2/devauth/devices/${segment(id)}`, undefined, { signal }), [id], { every: OFTEN });
  const reported = useLoad((signal) => get(`v1/inventory/devices/${segment(id)}`, undefined, { signal }), [id], { every: SELDOM });
  const connection = useLoad((signal) => get(`v1/deviceconnect/devices/${segment(id)}`, undefined, { signal }), [id], { every: OFTEN });
  const isConnected = connection.data?.data.status === "connected";
  const [tab, name, Shown, needed] = TABS.find(([name]) => name === route.query.tab) ?? TABS[0];
  // What may be done goes by the group, where roles do.
  const group = reported.data ? textOf(valueOf(reported.data.data, GROUP)) : "";
  const title = reported.data ? nameOf(reported.data.data) : id;
  const back = { href: "#/devices", name: "All devices" };

  if (device.error?.status === 404) {
    return html`
      <${Page} title="There is no such device" back=${back}>
        <p>Nobody has the id <code>${id}</code>. A device that was decommissioned and calls again has another one.</p>
      <//>
    `;
  }
  const tell = async (what, words) => {
    try {
      await post(`v1/deviceconnect/devices/${segment(id)}/${what}`);
      say(words);
    } catch (error) {
      connection.reload();
      throw error.status === 409 ? new Error("The device is not connected any more.") : error;
    }
  };
  const notNow = isConnected ? undefined : "only while the device is connected";
  const actions = html`
    ${may(WAKE, { group }) &&
    html`<${Act} disabled=${!isConnected} title=${notNow} act=${() => tell("check-update", "The device was told to ask for updates.")}>Check for update<//>
      <${Act} disabled=${!isConnected} title=${notNow} act=${() => tell("send-inventory", "The device was told to report.")}>Send inventory<//>`}
    ${may(MANAGE_DEVICES, { group }) && html`<button type="button" class="danger" onClick=${() => setAsked("decommission")}>Decommission</button>`}
  `;
  return html`
    <${Page} title=${title} back=${back} actions=${actions}>
      <p class="actions">
        ${device.data && html`<${Status} value=${device.data.data.status} />`}
        ${connection.data && html`<${Status} value=${connection.data.data.status}>${CONNECTION[connection.data.data.status] ?? connection.data.data.status}<//>`}
        ${device.data && html`<span class="quiet">last heard of <${Time} at=${device.data.data.check_in_time} /></span>`}
      </p>
      <${Tabs} tabs=${TABS.filter(([one, , , sets]) => one === tab || !sets || may(sets, { group }))} now=${tab} path=${route.path} query=${{}} />
      <${Loaded} of=${device}>${(answer) => needed && reported.data && !may(needed, { group }) ? html`<${Note}>Your roles do not let you have “${name}” of this device.<//>` : html`
        <${Shown} id=${id} route=${route} group=${group} device=${answer.data} reported=${reported} connection=${connection} reload=${() => [device, reported, connection].forEach((one) => one.reload())} />
      `}<//>
      ${asked === "decommission" &&
      html`<${Confirm} title=${`Decommission ${title}?`} name="Decommission" close=${() => setAsked(undefined)}
        send=${async () => { await remove(`v2/devauth/devices/${segment(id)}`); say(`${title} is decommissioned.`); go("#/devices"); }}>
        <p>The server forgets its keys, inventory, tags, group and alerts, and cuts it off. When it calls again it is a new device, and waits to be accepted.</p>
      <//>`}
    <//>
  `;
}
