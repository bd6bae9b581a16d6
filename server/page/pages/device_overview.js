// A device at a glance: what it is known by, its keys, why it has not got its update, its group and its tags.

import { html, useState } from "../html.js";
import { get, isSame, put, remove, segment } from "../api.js";
import { Act, Card, Confirm, Dialog, Field, Form, Loaded, Note, Status, Table, Time, changed, say, useLoad } from "../ui.js";
import { short } from "../words.js";
import { to } from "../route.js";
import { DEPLOY, MANAGE_DEVICES, may } from "../permit.js";
import { GroupField } from "./choose.js";
import { named, textOf, valueOf } from "./attributes.js";

const OFTEN = 5000;
/** Tags of one device. */
const MOST_TAGS = 20;

export function Overview({ id, group, device, reported, reload }) {
  const why = useLoad((signal) => get(`v1/deployments/deployments/devices/${segment(id)}/why`, undefined, { signal }), [id], { every: OFTEN });
  return html`
    <div class="cards">
      <${Card} title="Identity">
        <dl class="facts">
          ${Object.entries(device.identity_data).map(([name, value]) => html`<dt>${name}</dt><dd>${textOf(value)}</dd>`)}
          <dt>Id</dt><dd class="id">${id}</dd>
          <dt>First heard of</dt><dd><${Time} at=${device.created_ts} /></dd>
          <dt>Last heard of</dt><dd><${Time} at=${device.check_in_time} /></dd>
          <dt>Software</dt><dd>${reported.data ? textOf(valueOf(reported.data.data, "inventory/artifact_name")) || "not said" : "…"}</dd>
          <dt>Device type</dt><dd>${reported.data ? textOf(valueOf(reported.data.data, "inventory/device_type")) || "not said" : "…"}</dd>
        </dl>
      <//>
      <${Card} title="Why it has not got its update" actions=${device.status === "accepted" && may(DEPLOY, { group }) && html`<a class="button" href=${to(["rollouts", "new"], { devices: id })}>Roll out to it</a>`}>
        <${Loaded} of=${why}>${({ data }) => html`<${Why} data=${data} status=${device.status} />`}<//>
      <//>
      <${Card} title="Keys" wide><${Keys} device=${device} group=${group} reload=${reload} /><//>
      <${Loaded} of=${reported}>${(answer) => html`
        <${Group} id=${id} group=${group} reload=${reload} />
        <${Tags} id=${id} group=${group} answer=${answer} reload=${reload} />
      `}<//>
    </div>
  `;
}

function Why({ data, status }) {
  if (status !== "accepted") return html`<p>The device is not accepted: it gets nothing until it is.</p>`;
  if (data.deployments.length === 0) return html`<p class="quiet">No roll-out runs.</p>`;
  return html`
    <ul>
      ${data.deployments.map(
        (one) => html`<li key=${one.deployment_id}>
          <a href=${to(["rollouts", one.deployment_id])}>${one.name}</a>${one.artifact_name && ` (${one.artifact_name})`}: ${one.reason}
          ${one.canary && html` <${Status} value="canary" />`}
        </li>`,
      )}
    </ul>
  `;
}

/** By what a person knows a key: the beginning of its digest, which the device says as well. */
const nameOf = (set) => set.rust_ota?.sha256?.slice(0, 16) ?? short(set.id);

function Keys({ device, group, reload }) {
  const [asked, setAsked] = useState();
  const [seen, setSeen] = useState();
  const path = (set) => `v2/devauth/devices/${segment(device.id)}/auth/${segment(set.id)}`;
  const isIn = device.status === "accepted";
  const questions = {
    accept: {
      name: "Accept",
      danger: isIn,
      says: isIn
        ? "The device has an accepted key: that one is refused then, and whoever has this one speaks for the device. Do this only when you know why its key has changed."
        : "Whoever has this key speaks for the device.",
      send: (set) => put(`${path(set)}/status`, { status: "accepted" }),
    },
    reject: {
      name: "Reject",
      danger: true,
      says: "Whoever has this key is refused, and cut off at once.",
      send: (set) => put(`${path(set)}/status`, { status: "rejected" }),
    },
    dismiss: {
      name: "Dismiss",
      danger: true,
      says: "The server forgets this key. When the device calls with it again, it waits again to be accepted.",
      send: (set) => remove(path(set)),
    },
    revoke: {
      name: "End its login",
      danger: true,
      says: "The device is cut off, and has to ask for a new token with this key. It gets one when the key is accepted.",
      send: (set) => remove(`v2/devauth/tokens/${segment(set.id)}`),
    },
  };
  // Logins of devices are ended by those only who may change all of them.
  const mine = may(MANAGE_DEVICES) ? ["accept", "reject", "revoke", "dismiss"] : may(MANAGE_DEVICES, { group }) ? ["accept", "reject", "dismiss"] : [];
  const possible = { accepted: ["reject", "revoke", "dismiss"], pending: ["accept", "reject", "dismiss"], rejected: ["accept", "dismiss"], preauthorized: ["reject", "dismiss"] };
  const question = asked && questions[asked.kind];
  return html`
    <${Table} caption="Keys of the device" rows=${device.auth_sets} keyOf=${(set) => set.id}
      empty="The device has no key any more: when it calls again, its key waits here."
      columns=${[
        { title: "Key", show: (set) => html`<span><code title="SHA-256 of the key">${nameOf(set)}</code> <button type="button" class="plain" onClick=${() => setSeen(set)}>show</button></span>` },
        { title: "Status", show: (set) => html`<${Status} value=${set.status} />` },
        { title: "Came", show: (set) => html`<${Time} at=${set.ts} />` },
        mine.length > 0 && {
          title: "Decide",
          show: (set) => html`<span class="actions">
            ${(possible[set.status] ?? []).filter((kind) => mine.includes(kind)).map(
              (kind) => html`<button type="button" class=${questions[kind].danger ? "danger" : "main"} onClick=${() => setAsked({ kind, set })}>${questions[kind].name}</button>`,
            )}
          </span>`,
        },
      ].filter(Boolean)} />
    ${seen &&
    html`<${Dialog} title="Public key" close=${() => setSeen(undefined)}>
      ${seen.rust_ota?.sha256 && html`<p>SHA-256 <code>${seen.rust_ota.sha256}</code></p><p class="quiet">On the device, <code>rust-ota doctor</code> says the same of the key that it has.</p>`}
      <pre tabindex="0">${seen.pubkey}</pre>
      <p class="quiet">Here it has the id <code>${seen.id}</code>.</p>
      <div class="actions"><button type="button" onClick=${() => setSeen(undefined)}>Close</button></div>
    <//>`}
    ${question &&
    html`<${Confirm} title=${`${question.name}: key ${nameOf(asked.set)}`} name=${question.name} danger=${question.danger} close=${() => setAsked(undefined)}
      send=${async () => { await question.send(asked.set); reload(); }}>
      <p>${question.says}</p>
    <//>`}
  `;
}

function Group({ id, group, reload }) {
  const [isOpen, setOpen] = useState(false);
  const [name, setName] = useState("");
  const groups = useLoad(async (signal) => (isOpen ? get("v1/inventory/groups", undefined, { signal }).catch(() => ({ data: [] })) : { data: [] }), [isOpen]);
  const leave = async () => {
    await remove(`v1/inventory/devices/${segment(id)}/group/${segment(group)}`);
    say(`The device has left ${group}.`);
    reload();
  };
  return html`
    <${Card} title="Group" actions=${may(MANAGE_DEVICES, { group }) && html`
      <button type="button" onClick=${() => { setName(group); setOpen(true); }}>${group ? "Move" : "Put into a group"}</button>
      ${group && html`<${Act} act=${leave}>Take out<//>`}
    `}>
      ${group ? html`<a href=${to(["devices"], { group })}>${group}</a>` : html`<p class="quiet">It is in none.</p>`}
      ${isOpen &&
      html`<${Dialog} title="Group of the device" close=${() => setOpen(false)}>
        <${Form} cancel=${() => setOpen(false)} send=${async () => {
          await put(`v1/inventory/devices/${segment(id)}/group`, { group: name.trim() });
          setOpen(false);
          reload();
        }}>
          <${GroupField} value=${name} groups=${groups.data?.data} onGroup=${setName} />
        <//>
      <//>`}
    <//>
  `;
}

const tagsOf = (device) => device.attributes.filter((one) => one.scope === "tags");
/** What is kept of tags, in whatever order. */
const kept = (tags) => Object.fromEntries(tags.map(({ name, value, description = "" }) => [name, [textOf(value), description]]));

function Tags({ id, group, answer, reload }) {
  const [edited, setEdited] = useState();
  const tags = tagsOf(answer.data);
  return html`
    <${Card} title="Tags" actions=${may(MANAGE_DEVICES, { group }) && html`<button type="button" onClick=${() => setEdited({ tags, etag: answer.etag })}>Change</button>`}>
      ${tags.length
        ? html`<dl class="facts">${tags.map((tag) => html`<dt>${tag.name}</dt><dd title=${tag.description}>${textOf(tag.value)}${tag.description && html`<br /><small class="quiet">${tag.description}</small>`}</dd>`)}</dl>`
        : html`<p class="quiet">None. The tag <code>name</code> is what lists call the device.</p>`}
      ${edited && html`<${TagEditor} id=${id} began=${edited} close=${() => setEdited(undefined)} done=${reload} />`}
    <//>
  `;
}

function TagEditor({ id, began, close, done }) {
  const [rows, setRows] = useState(() => [...began.tags.map(({ name, value, description }) => ({ name, value: textOf(value), description: description ?? "" })), ...(began.tags.length ? [] : [{ name: "name", value: "", description: "" }])]);
  const change = (at, members) => setRows(changed(rows, at, members));
  const save = async () => {
    const tags = rows.filter((row) => row.name.trim() || row.value).map((row) => ({ name: row.name.trim(), value: row.value, ...(row.description ? { description: row.description } : {}) }));
    named(tags, "tag");
    const path = `v1/inventory/devices/${segment(id)}`;
    try {
      await put(`${path}/tags`, tags, { etag: began.etag });
    } catch (error) {
      if (error.status !== 412) throw error;
      done();
      // Who sends again what had no answer has changed them themselves.
      if (!isSame(kept(tags), kept(tagsOf((await get(path)).data)))) throw new Error("Somebody else has changed the tags since you began, so nothing was saved. Cancel to see them as they are now, and begin again.");
    }
    say("The tags are saved.");
    close();
    done();
  };
  return html`
    <${Dialog} title="Tags of the device" close=${close}>
      <${Form} send=${save} cancel=${close}>
        ${rows.map(
          (row, at) => html`<fieldset key=${at}>
            <legend>Tag ${at + 1}</legend>
            <${Field} label="Name" maxlength="1024" value=${row.name} onInput=${(event) => change(at, { name: event.target.value })} />
            <${Field} label="Value" maxlength="4096" value=${row.value} onInput=${(event) => change(at, { value: event.target.value })} />
            <${Field} label="What it means" hint="may be empty" maxlength="4096" value=${row.description} onInput=${(event) => change(at, { description: event.target.value })} />
            <button type="button" onClick=${() => setRows(rows.filter((_, other) => other !== at))}>Take this tag away</button>
          </fieldset>`,
        )}
        ${rows.length < MOST_TAGS
          ? html`<p><button type="button" onClick=${() => setRows([...rows, { name: "", value: "", description: "" }])}>Another tag</button></p>`
          : html`<${Note}>A device has up to ${MOST_TAGS} tags.<//>`}
      <//>
    <//>
  `;
}
