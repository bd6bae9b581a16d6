// Limits of the fleet, and what an operator looks for beside the page.

import { html, useState } from "../html.js";
import { get, put, unlessChanged } from "../api.js";
import { Card, Field, Form, Loaded, Status, say, useLoad } from "../ui.js";
import { bytes, counted } from "../words.js";
import { EVERYTHING, SEE_ROLLOUTS, may } from "../permit.js";

const MIB = 1024 * 1024;
const DOWNLOADS = "v1/deployments/limits/downloads";
/** What is set of it; the rest is how far it is used. */
const limitsOf = ({ bytes_per_hour, in_flight }) => ({ bytes_per_hour, in_flight });

export function Server() {
  const health = useLoad(async (signal) => {
    const answer = await fetch("/health/ready", { signal, cache: "no-store" });
    return answer.json();
  }, [], { every: 10000 });
  const mayLook = may(SEE_ROLLOUTS);
  const storage = useLoad(async (signal) => (mayLook ? get("v1/deployments/limits/storage", undefined, { signal }) : undefined), []);
  const budget = useLoad(async (signal) => (mayLook ? get(DOWNLOADS, undefined, { signal }) : undefined), []);
  return html`
    <div class="cards">
      <${Card} title="State">
        <${Loaded} of=${health}>
          ${(data) =>
            data.ready
              ? html`<p><${Status} value="OK">ready<//></p>`
              : html`<p><${Status} value="failure">not ready<//></p><ul>${data.reasons.map((one) => html`<li>${one.part}: ${one.reason}</li>`)}</ul>`}
        <//>
        ${mayLook && html`<${Loaded} of=${storage}>
          ${({ data }) => html`<p>Artifacts take ${bytes(data.usage)}${data.limit ? ` of ${bytes(data.limit)}` : ""}.</p>`}
        <//>`}
      <//>
      ${mayLook && html`<${Card} title="Downloads of the whole fleet">
        <${Loaded} of=${budget}>${({ data }) => html`<${Budget} key=${JSON.stringify([data.bytes_per_hour, data.in_flight])} now=${data} done=${budget.reload} />`}<//>
      <//>`}
      <${Card} title="For operators">
        <dl class="facts">
          <dt>Backup</dt><dd><code>rust-ota-server backup</code> while the server runs</dd>
          <dt>Metrics</dt><dd><code>--metrics 127.0.0.1:9100</code>, then <code>GET /metrics</code> there (Prometheus)</dd>
          <dt>Health</dt><dd><code>${location.origin}/health/ready</code>, <code>/health/live</code></dd>
          <dt>API</dt><dd><a href="/api/openapi.json">description (OpenAPI)</a></dd>
        </dl>
      <//>
    </div>
  `;
}

function Budget({ now, done }) {
  const [rate, setRate] = useState(now.bytes_per_hour ? String(now.bytes_per_hour / MIB) : "");
  const [flight, setFlight] = useState(now.in_flight ? String(now.in_flight) : "");
  const [began, setBegan] = useState(limitsOf(now));
  const isLimited = now.bytes_per_hour !== undefined || now.in_flight !== undefined;
  return html`
    ${isLimited && html`<p>${bytes(now.spent_bytes ?? 0)} were offered in this hour; ${counted(now.loading ?? 0, "device")} load now.</p>`}
    ${!may(EVERYTHING) && html`<p>${said(now)}</p>`}
    ${may(EVERYTHING) && html`<${Form} send=${async () => {
      const wanted = {};
      if (rate) wanted.bytes_per_hour = Math.round(Number(rate) * MIB);
      if (flight) wanted.in_flight = Number(flight);
      await unlessChanged(DOWNLOADS, {
        began,
        wanted,
        of: limitsOf,
        words: "Somebody else has changed the limit since you began, so nothing was saved. Load the page again to see it.",
        send: (etag) => put(DOWNLOADS, wanted, { etag }),
      });
      setBegan(wanted);
      say("The limit holds from now on.");
      done();
    }}>
      <${Field} label="MiB in an hour" type="number" min="1" hint="Empty: no limit" value=${rate} onInput=${(event) => setRate(event.target.value)} />
      <${Field} label="Devices that load at a time" type="number" min="1" hint="Empty: no limit" value=${flight} onInput=${(event) => setFlight(event.target.value)} />
    <//>`}
  `;
}

/** The limit, for those who may not change it. */
function said({ bytes_per_hour, in_flight }) {
  const limits = [bytes_per_hour && `${bytes(bytes_per_hour)} in an hour`, in_flight && `${counted(in_flight, "device")} at a time`].filter(Boolean);
  return limits.length ? `At most ${limits.join(", ")}.` : "There is no limit.";
}
