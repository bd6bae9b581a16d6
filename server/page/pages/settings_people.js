// Who may log in, and as what.

import { html, useState } from "../html.js";
import { get, post, put, remove, segment } from "../api.js";
import { Card, Confirm, Dialog, Field, Form, Loaded, NewPassword, Status, Table, Time, say, ticked, useLoad } from "../ui.js";
import { MANAGE_PEOPLE, may } from "../permit.js";

export function People({ me }) {
  const list = useLoad((signal) => get("v1/useradm/users", undefined, { signal }), []);
  const roles = useLoad((signal) => get("v2/useradm/roles", { per_page: 500 }, { signal }), []);
  const [editing, setEditing] = useState();
  const [removing, setRemoving] = useState();
  const done = () => {
    setEditing();
    list.reload();
  };
  return html`
    <${Card} title="People" actions=${may(MANAGE_PEOPLE) && html`<button type="button" class="main" onClick=${() => setEditing({ roles: [] })}>New person</button>`}>
      <${Loaded} of=${list}>
        ${({ data }) => html`<${Table} caption="People" rows=${data} keyOf=${(row) => row.id}
          empty="No user is kept. Whoever is named when the server starts is not in this list."
          columns=${[
            { title: "E-mail", show: (row) => html`${row.email}${row.id === me.id && html` <${Status} value="OK">you<//>`}` },
            { title: "Roles", show: (row) => (row.roles.length ? row.roles.join(", ") : "everything") },
            { title: "Made", show: (row) => html`<${Time} at=${row.created_ts} />` },
            { title: "Logged in", show: (row) => html`<${Time} at=${row.login_ts} />` },
            { title: "", show: (row) => may(MANAGE_PEOPLE) && html`<div class="actions">
                <button type="button" onClick=${() => setEditing(row)} aria-label=${`Change ${row.email}`}>Change</button>
                ${row.id !== me.id && html`<button type="button" class="danger" onClick=${() => setRemoving(row)} aria-label=${`Remove ${row.email}`}>Remove</button>`}
              </div>` },
          ]} />`}
      <//>
      ${editing && html`<${Person} user=${editing} known=${roles} me=${me} close=${() => setEditing()} done=${done} />`}
      ${removing &&
      html`<${Confirm} title=${`Remove ${removing.email}`} name="Remove" close=${() => setRemoving()} send=${async () => {
        await remove(`v1/useradm/users/${segment(removing.id)}`);
        say(`${removing.email} is removed.`);
        list.reload();
      }}><p>Sessions and tokens of this person end at once. What was done stays in the audit log.</p><//>`}
    <//>
  `;
}

function Person({ user, known, me, close, done }) {
  const [email, setEmail] = useState(user.email ?? "");
  const [password, setPassword] = useState("");
  const [roles, setRoles] = useState(new Set(user.roles));
  const tick = (name, on) => setRoles(ticked(roles, [name], on));
  const send = async () => {
    if (!user.id) {
      await post("v1/useradm/users", { email, password, roles: [...roles] });
      say(`${email} may log in.`);
      return done();
    }
    const changed = {};
    if (email !== user.email) changed.email = email;
    if (password) changed.password = password;
    if ([...roles].sort().join() !== [...user.roles].sort().join()) changed.roles = [...roles];
    if (Object.keys(changed).length) await put(`v1/useradm/users/${segment(user.id)}`, changed);
    say(`${email} is changed.`);
    done();
  };
  return html`
    <${Dialog} title=${user.id ? `Change ${user.email}` : "New person"} close=${close}>
      <${Form} cancel=${close} send=${send} name=${user.id ? "Save" : "Make"} ready=${known.data !== undefined}>
        <${Field} label="E-mail" type="email" autocomplete="off" required value=${email} onInput=${(event) => setEmail(event.target.value)} />
        ${user.id !== me.id &&
        html`<${NewPassword} label=${user.id ? "New password" : "Password"} required=${!user.id}
          hint=${user.id ? "Empty: it stays. Another ends all sessions of this person." : undefined} value=${password}
          onInput=${(event) => setPassword(event.target.value)} />`}
        <fieldset>
          <legend>Roles</legend>
          <p class="quiet">Whoever has none may do everything.</p>
          <${Loaded} of=${known}>${({ data }) => data.map(
            ({ name }) => html`<label class="check"><input type="checkbox" checked=${roles.has(name)} onChange=${(event) => tick(name, event.target.checked)} /> ${name}</label>`,
          )}<//>
        </fieldset>
      <//>
    <//>
  `;
}
