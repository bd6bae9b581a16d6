// One's own password, second factor, sessions and tokens.

import { html, useState } from "../html.js";
import { get, post, put, remove, segment } from "../api.js";
import { Card, Choice, Confirm, Dialog, Field, Form, Loaded, NewPassword, Note, Status, Table, Time, say, useLoad } from "../ui.js";

const DAYS = [7, 30, 90, 365];

export function Oneself({ me }) {
  return html`
    <div class="cards">
      <${Password} me=${me} />
      <${SecondFactor} />
      <${Sessions} />
      <${Tokens} />
    </div>
  `;
}

function Password({ me }) {
  const [now, setNow] = useState("");
  const [next, setNext] = useState("");
  return html`
    <${Card} title="Password">
      <${Form} name="Change it" send=${async () => {
        await put("v1/useradm/users/me", { current_password: now, password: next });
        say("The password is another one now. Log in with it.");
        location.reload();
      }}>
        <input type="text" class="unseen" autocomplete="username" value=${me.email} readonly tabindex="-1" aria-hidden="true" />
        <${Field} label="Password of now" type="password" autocomplete="current-password" required value=${now} onInput=${(event) => setNow(event.target.value)} />
        <${NewPassword} label="New password" required hint="It ends all sessions and tokens." value=${next} onInput=${(event) => setNext(event.target.value)} />
      <//>
    <//>
  `;
}

function SecondFactor() {
  const state = useLoad((signal) => get("v1/useradm/settings/me/2fa", undefined, { signal }), []);
  const [made, setMade] = useState();
  const [code, setCode] = useState("");
  const [off, setOff] = useState(false);
  const [password, setPassword] = useState("");
  // What was typed into one window is in none after it.
  const close = () => {
    setMade();
    setOff(false);
    setCode("");
    setPassword("");
  };
  const begin = async () => setMade((await post("v1/useradm/settings/me/2fa")).data);
  return html`
    <${Card} title="Second factor">
      <${Loaded} of=${state}>
        ${({ data }) =>
          data.enabled
            ? html`<p><${Status} value="OK">on<//></p><button type="button" class="danger" onClick=${() => setOff(true)}>Turn it off</button>`
            : html`<p>Besides the password, a login asks for a code from an authenticator program on a phone.</p>
                <${Form} name="Set it up" send=${begin} />`}
      <//>
      ${made &&
      html`<${Dialog} title="Set up a second factor" close=${close}>
        <p>Enter this key in the authenticator program, as one for codes by time:</p>
        <pre>${made.secret.replace(/(.{4})/g, "$1 ").trim()}</pre>
        <p>Or open <a href=${made.uri.startsWith("otpauth:") ? made.uri : undefined}>this link</a> on the phone.</p>
        <${Form} name="Turn it on" cancel=${close} send=${async () => {
          await put("v1/useradm/settings/me/2fa", { token2fa: code, current_password: password });
          close();
          say("The second factor is on.");
          state.reload();
        }}>
          <${Field} label="The code that it shows" inputmode="numeric" autocomplete="one-time-code" required value=${code} onInput=${(event) => setCode(event.target.value)} />
          <${Field} label="Password" type="password" autocomplete="current-password" required value=${password} onInput=${(event) => setPassword(event.target.value)} />
        <//>
      <//>`}
      ${off &&
      html`<${Confirm} title="Turn the second factor off" name="Turn it off" close=${close} send=${async () => {
        await remove("v1/useradm/settings/me/2fa", undefined, { json: { password } });
        say("The second factor is off.");
        state.reload();
      }}>
        <${Field} label="Password" type="password" autocomplete="current-password" required value=${password} onInput=${(event) => setPassword(event.target.value)} />
      <//>`}
    <//>
  `;
}

function Sessions() {
  const list = useLoad((signal) => get("v1/useradm/settings/sessions", undefined, { signal }), []);
  const [ending, setEnding] = useState();
  return html`
    <${Card} title="Sessions" wide>
      <${Loaded} of=${list}>
        ${({ data }) => html`<${Table} caption="Sessions" rows=${data} keyOf=${(row) => row.id}
          columns=${[
            { title: "From", show: (row) => row.from },
            { title: "Browser", show: (row) => row.agent },
            { title: "Began", show: (row) => html`<${Time} at=${row.created_ts} />` },
            { title: "Used", show: (row) => html`<${Time} at=${row.last_used_ts} />` },
            { title: "", show: (row) => (row.current ? html`<${Status} value="OK">this one<//>` : html`<button type="button" onClick=${() => setEnding(row)}>End it</button>`) },
          ]} />`}
      <//>
      ${ending &&
      html`<${Confirm} title="End the session" name="End it" close=${() => setEnding()} send=${async () => {
        await remove(`v1/useradm/settings/sessions/${segment(ending.id)}`);
        list.reload();
      }}><p>Whoever is in by it, from ${ending.from}, has to log in again.</p><//>`}
    <//>
  `;
}

function Tokens() {
  const list = useLoad((signal) => get("v1/useradm/settings/tokens", undefined, { signal }), []);
  const [making, setMaking] = useState(false);
  const [name, setName] = useState("");
  const [days, setDays] = useState("90");
  const [made, setMade] = useState();
  const [ending, setEnding] = useState();
  return html`
    <${Card} title="Personal tokens" wide actions=${html`<button type="button" onClick=${() => setMaking(true)}>New token</button>`}>
      <p class="quiet">For programs that ask the API as you: <code>Authorization: Bearer TOKEN</code>.</p>
      ${made && html`<${Note} kind="good"><span>This is the token. It is shown once: <code>${made}</code></span><button type="button" onClick=${() => setMade()}>I have it</button><//>`}
      <${Loaded} of=${list}>
        ${({ data }) => html`<${Table} caption="Personal tokens" rows=${data} keyOf=${(row) => row.id} empty="None."
          columns=${[
            { title: "Name", show: (row) => row.name },
            { title: "Made", show: (row) => html`<${Time} at=${row.created_ts} />` },
            { title: "Ends", show: (row) => html`<${Time} at=${row.expiration_date} />` },
            { title: "Used", show: (row) => html`<${Time} at=${row.last_used} />` },
            { title: "", show: (row) => html`<button type="button" class="danger" onClick=${() => setEnding(row)}>Remove</button>` },
          ]} />`}
      <//>
      ${making &&
      html`<${Dialog} title="New token" close=${() => setMaking(false)}>
        <${Form} name="Make it" cancel=${() => setMaking(false)} send=${async () => {
          const answer = await post("v1/useradm/settings/tokens", { name, expires_in: Number(days) * 86400 });
          setMade(answer.data);
          setMaking(false);
          setName("");
          list.reload();
        }}>
          <${Field} label="Name" required value=${name} onInput=${(event) => setName(event.target.value)} hint="What it is for" />
          <${Choice} label="Ends after" options=${DAYS.map((count) => [String(count), `${count} days`])} value=${days} onChoice=${setDays} />
        <//>
      <//>`}
      ${ending &&
      html`<${Confirm} title=${`Remove the token ${ending.name}`} name="Remove" close=${() => setEnding()} send=${async () => {
        await remove(`v1/useradm/settings/tokens/${segment(ending.id)}`);
        list.reload();
      }}><p>Programs that use it are refused from then on.</p><//>`}
    <//>
  `;
}
