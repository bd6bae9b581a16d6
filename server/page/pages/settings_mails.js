// People who are told of alerts by mail.

import { html, useEffect, useState } from "../html.js";
import { get, post, put } from "../api.js";
import { Card, Confirm, Field, Form, Loaded, Note, Problem, Status, Table, Time, say, useLoad, useOnce } from "../ui.js";
import { counted } from "../words.js";

const MAILS = "v1/devicemonitor/settings/global/channel/alerts/email";

export function Mails() {
  const mails = useLoad((signal) => get(MAILS, undefined, { signal }), [], { every: 10000 });
  return html`<${Loaded} of=${mails}>${({ data }) => html`<${Shown} now=${data} done=${mails.reload} />`}<//>`;
}

function Shown({ now, done }) {
  const [removing, setRemoving] = useState();
  // What somebody else has changed meanwhile stays.
  const set = async (change) => {
    const { data } = await get(MAILS);
    await put(MAILS, { enabled: data.enabled, receivers: change(data.receivers) });
    done();
  };
  const turn = async (enabled) => {
    await put(`${MAILS}/status`, { enabled });
    done();
  };
  return html`
    <${Card} title="Mails about alerts">
      ${!now.configured &&
      html`<${Note} kind="bad">No mail is sent: the server was started without <code>--smtp</code>. What is set here holds when it is started with it.<//>`}
      <p>Sent when something of a device is not well, when it is well again, and when a rule stops a roll-out. Nobody gets more than 26 mails in an hour: what is more is summed up.</p>
      <${Switch} now=${now} set=${turn} />
      ${now.enabled && now.receivers.length === 0 && html`<${Note}>Nobody gets any: there is no receiver.<//>`}
      <${Table} caption="Who gets mails" rows=${now.states} keyOf=${(row) => row.receiver} empty="Nobody."
        columns=${[
          { title: "Address", show: (row) => row.receiver },
          { title: "Last mail", show: (row) => html`<${Time} at=${row.sent} />` },
          { title: "Waiting", show: (row) => (row.waiting ? counted(row.waiting, "event") : "nothing") },
          { title: "Trouble", show: (row) => row.error && html`<${Status} value="failure">${row.error}<//>` },
          { title: "", show: (row) => html`<button type="button" class="danger" aria-label=${`Remove ${row.receiver}`} onClick=${() => setRemoving(row.receiver)}>Remove</button>` },
        ]} />
      ${removing &&
      html`<${Confirm} title="Remove the receiver" name="Remove" close=${() => setRemoving()} send=${() => set((all) => all.filter((one) => one !== removing))}>
        <p>${removing} gets no more mails about alerts, and not those that wait.</p>
      <//>`}
    <//>
    <${Card} title="New receiver">
      <${Add} add=${(address) => set((all) => [...all, address])} />
    <//>
    ${now.configured && html`<${Card} title="Try it"><${Try} /><//>`}
  `;
}

function Switch({ now, set }) {
  const [error, setError] = useState();
  // What was clicked stays until the server says anew how it is.
  const [clicked, setClicked] = useState();
  useEffect(() => setClicked(), [now]);
  const [busy, run] = useOnce();
  const turn = (event) => {
    const enabled = event.target.checked;
    run(async () => {
      setClicked(enabled);
      try {
        await set(enabled);
        setError();
        say(enabled ? "Mails are sent from now on." : "No mails are sent any more.");
      } catch (problem) {
        setClicked();
        setError(problem);
      }
    });
  };
  return html`
    <label class="check"><input type="checkbox" checked=${clicked ?? now.enabled} onClick=${(event) => busy && event.preventDefault()} onChange=${turn} /> Send mails</label>
    ${error && html`<${Problem} error=${error} />`}
  `;
}

function Add({ add }) {
  const [address, setAddress] = useState("");
  return html`
    <${Form} name="Add" send=${async () => {
      await add(address);
      say(`${address} gets mails about what happens from now on.`);
      setAddress("");
    }}>
      <${Field} label="Address" type="email" required placeholder="ops@example.com" value=${address} onInput=${(event) => setAddress(event.target.value)} />
    <//>
  `;
}

function Try() {
  const [address, setAddress] = useState("");
  const [answer, setAnswer] = useState();
  return html`
    <${Form} name="Send a mail" send=${async () => {
      setAnswer();
      setAnswer((await post(`${MAILS}/test`, { address })).data);
    }}>
      <${Field} label="Send one to" type="email" required value=${address} onInput=${(event) => setAddress(event.target.value)} />
    <//>
    ${answer && html`<p role="status"><${Status} value=${answer.sent ? "success" : "failure"}>${answer.sent ? "taken" : "not taken"}<//> ${answer.said}</p>`}
  `;
}
