// What a device has logged of a roll-out.

import { html } from "../html.js";
import { get, segment } from "../api.js";
import { Dialog, Form, Loaded, say, useLoad } from "../ui.js";
import { keep } from "./device_export.js";
import { Named } from "./names.js";

/** Shows it; `title` is what the window is called. */
export function Log({ deployment, device, title = "Log of the device", close }) {
  const log = useLoad(
    (signal) => get(`v1/deployments/deployments/${segment(deployment.id)}/devices/${segment(device)}/log`, undefined, { signal }),
    [deployment.id, device],
  );
  const text = log.data && String(log.data.data);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    say("The log is copied.");
  };
  return html`
    <${Dialog} title=${title} close=${close}>
      <p><${Named} device=${device} /></p>
      ${log.error?.status === 404
        ? html`<p>It has sent none.</p>`
        : html`<${Loaded} of=${log}>${() => html`<pre tabindex="0" aria-label="Log">${text || "It is empty."}</pre>`}<//>`}
      <div class="actions">
        ${text && navigator.clipboard && html`<${Form} name="Copy" send=${copy} />`}
        ${text && html`<button type="button" onClick=${() => keep(new Blob([text], { type: "text/plain" }), `${device}-${deployment.name}.log`)}>Save</button>`}
        <button type="button" onClick=${close}>Close</button>
      </div>
    <//>
  `;
}
