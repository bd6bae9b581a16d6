// What people may do: sets of permissions, some for certain groups of devices or tags of releases only.

import { html, useState } from "../html.js";
import { get, post, put, remove, segment, unlessChanged } from "../api.js";
import { Card, Confirm, Dialog, Field, Form, Loaded, Pager, Table, say, useLoad, usePages } from "../ui.js";
import { MANAGE_PEOPLE, may } from "../permit.js";

const PER_PAGE = 50;

/** Roles that the server brings along begin so, and cannot be changed. */
const isBuiltIn = (role) => role.name.startsWith("RBAC_ROLE_");

const shown = (grant) => (grant.scope ? `${grant.name} (${grant.scope.value.join(", ")})` : grant.name);

export function Roles() {
  const [page, setPage] = useState(1);
  const list = usePages((of, signal) => get("v2/useradm/roles", of, { signal }), [], { page, perPage: PER_PAGE, turn: setPage });
  const sets = useLoad((signal) => get("v2/useradm/permission_sets", undefined, { signal }), []);
  const [editing, setEditing] = useState();
  const [removing, setRemoving] = useState();
  return html`
    <${Card} title="Roles" actions=${may(MANAGE_PEOPLE) && html`<button type="button" class="main" onClick=${() => setEditing({ permission_sets_with_scope: [] })}>New role</button>`}>
      <${Loaded} of=${list}>
        ${({ data, total }) => html`<${Table} caption="Roles" rows=${data} keyOf=${(row) => row.name}
          columns=${[
            { title: "Name", show: (row) => row.name },
            { title: "For", show: (row) => row.description },
            { title: "Allows", show: (row) => row.permission_sets_with_scope.map(shown).join(", ") },
            { title: "", show: (row) => (isBuiltIn(row) ? html`<span class="quiet">built in</span>` : may(MANAGE_PEOPLE) && html`<div class="actions">
                <button type="button" onClick=${() => setEditing(row)} aria-label=${`Change ${row.name}`}>Change</button>
                <button type="button" class="danger" onClick=${() => setRemoving(row)} aria-label=${`Remove ${row.name}`}>Remove</button>
              </div>`) },
          ]} />
          <${Pager} page=${page} perPage=${PER_PAGE} total=${total} what="roles" onPage=${setPage} />`}
      <//>
      ${editing && html`<${Role} role=${editing} sets=${sets} reload=${list.reload} close=${() => setEditing()} done=${() => { setEditing(); list.reload(); }} />`}
      ${removing &&
      html`<${Confirm} title=${`Remove the role ${removing.name}`} name="Remove" close=${() => setRemoving()} send=${async () => {
        await remove(`v2/useradm/roles/${segment(removing.name)}`);
        list.reload();
      }}><p>A role that somebody has is not removed.</p><//>`}
    <//>
  `;
}

/** What is kept of a role. */
const kept = ({ description, permission_sets_with_scope }) => [description, permission_sets_with_scope];

function Role({ role, sets, close, done, reload }) {
  const isNew = role.name === undefined;
  const [name, setName] = useState(role.name ?? "");
  const [description, setDescription] = useState(role.description ?? "");
  const [grants, setGrants] = useState(
    Object.fromEntries(role.permission_sets_with_scope.map((grant) => [grant.name, { type: grant.scope?.type ?? "", value: grant.scope?.value.join(", ") ?? "" }])),
  );
  const change = (set, grant) => setGrants({ ...grants, [set]: grant });
  const send = async () => {
    const wanted = {
      name,
      description,
      permission_sets_with_scope: Object.entries(grants)
        .filter(([, grant]) => grant)
        .map(([set, grant]) => (grant.type ? { name: set, scope: { type: grant.type, value: grant.value.split(",").map((one) => one.trim()).filter(Boolean) } } : { name: set })),
    };
    if (isNew) await post("v2/useradm/roles", wanted);
    else {
      const path = `v2/useradm/roles/${segment(role.name)}`;
      await unlessChanged(path, {
        began: kept(role),
        wanted: kept(wanted),
        of: kept,
        words: "Somebody else has changed this role since you began, so nothing was saved. Cancel, look at it, and begin again.",
        reload,
        send: (etag) => put(path, wanted, { etag }),
      });
    }
    say(`The role ${name} is kept.`);
    done();
  };
  return html`
    <${Dialog} title=${isNew ? "New role" : `Change ${role.name}`} close=${close}>
      <${Form} cancel=${close} send=${send} ready=${sets.data !== undefined}>
        <${Field} label="Name" required disabled=${!isNew} value=${name} onInput=${(event) => setName(event.target.value)} />
        <${Field} label="Who it is for" value=${description} onInput=${(event) => setDescription(event.target.value)} />
        <fieldset>
          <legend>Allows</legend>
          <${Loaded} of=${sets}>${({ data }) => data.map((set) => {
            const grant = grants[set.name];
            return html`
              <label class="check"><input type="checkbox" checked=${Boolean(grant)} onChange=${(event) => change(set.name, event.target.checked ? { type: "", value: "" } : undefined)} />
                <span>${set.name} <small class="quiet">${set.description}</small></span></label>
              ${grant && set.supported_scope_types.length > 0 &&
              html`<div class="row">
                <select aria-label=${`Where ${set.name} holds`} value=${grant.type} onChange=${(event) => change(set.name, { ...grant, type: event.target.value })}>
                  <option value="">everywhere</option>
                  ${set.supported_scope_types.map((type) => html`<option value=${type}>${type === "DeviceGroups" ? "only in groups" : "only releases with tags"}</option>`)}
                </select>
                ${grant.type && html`<input required aria-label=${`Names for ${set.name}, with commas`} placeholder="one, two" value=${grant.value} onInput=${(event) => change(set.name, { ...grant, value: event.target.value })} />`}
              </div>`}
            `;
          })}<//>
        </fieldset>
      <//>
    <//>
  `;
}
