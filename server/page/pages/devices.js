// All devices: found by anything, sorted by anything, and many of them changed at once. The server searches, sorts and counts;
// this page never has more than one page of them.

import { html, useEffect, useMemo, useState } from "../html.js";
import { get, post, put, remove, segment, unlessChanged } from "../api.js";
import { Act, Choice, Confirm, Dialog, Empty, Field, Form, Loaded, Note, Page, Pager, Table, say, useLoad, usePages } from "../ui.js";
import { counted, number } from "../words.js";
import { DEPLOY, MANAGE_DEVICES, SEE_DEVICES, groupsFor, may } from "../permit.js";
import { pageIn, to, useQuery } from "../route.js";
import { Value, attributeOf, knownAttributes, nameOf, titleOf, valueOf } from "./attributes.js";
import { NO_GROUP, SearchForm, describeTerm, find, ownTerms, searchOf } from "./device_search.js";
import { ACTIONS, Bulk, MOST_AT_ONCE } from "./device_bulk.js";
import { Columns, useColumns } from "./device_columns.js";
import { Export } from "./device_export.js";

const OFTEN = 10000;
const SELDOM = 60000;
const PER_PAGE = [20, 50, 100, 500];
/** Devices that an address can name; more of them are a group. */
const NAMED_IN_ADDRESS = 100;
const STATES = ["accepted", "pending", "preauthorized", "rejected", "noauth"];
const STATE_NAMES = { noauth: "without a key" };

/** What may be done to devices of a status. */
const POSSIBLE = {
  pending: ["accept", "reject", "group", "ungroup", "decommission"],
  accepted: ["reject", "group", "ungroup", "decommission"],
  rejected: ["accept", "group", "ungroup", "decommission"],
};
/** What moves devices between groups, and is for those who may change all of them. */
const MOVES = ["group", "ungroup"];

/** What may be done to devices of a status and a group by whoever looks. */
function possible(status, group) {
  if (!may(MANAGE_DEVICES, { group })) return [];
  const kinds = POSSIBLE[status] ?? Object.keys(ACTIONS);
  return may(MANAGE_DEVICES) ? kinds : kinds.filter((kind) => !MOVES.includes(kind));
}

async function counts(signal) {
  const [states, all] = await Promise.all([
    get("v2/inventory/statistics", undefined, { signal }),
    get("v2/devauth/devices/count", undefined, { signal }),
  ]);
  const of = (status) => Object.values(states.data.devices_by_status?.[status] ?? {}).reduce((sum, one) => sum + one, 0);
  const found = Object.fromEntries(STATES.map((status) => [status, of(status)]));
  const known = STATES.reduce((sum, status) => sum + found[status], 0);
  return { ...found, noauth: Math.max(0, all.data.count - known), all: all.data.count };
}

/** A list that not everybody may see: `undefined` for those. */
const ifAllowed = (asked) => asked.catch((error) => (error.status === 403 ? undefined : Promise.reject(error)));

export function Devices({ route }) {
  const [asked, changeQuery] = useQuery(route);
  // Whose roles are limited to groups sees one of them at a time.
  const [own] = useState(() => groupsFor(SEE_DEVICES));
  const query = own && !asked.group ? { ...asked, group: own[0] } : asked;
  const perPage = PER_PAGE.includes(Number(query.per)) ? Number(query.per) : PER_PAGE[1];
  const page = pageIn(query);
  const turn = (next) => changeQuery({ page: next });
  const [columns, setColumns] = useColumns();
  const [chosen, setChosen] = useState(new Set());
  const [isAll, setIsAll] = useState(false);
  const [opened, setOpened] = useState();
  // What is looked for, without where one is in it.
  const looked = JSON.stringify([query.q, query.group, query.status, query.filter, query.f]);
  useEffect(() => {
    setChosen(new Set());
    setIsAll(false);
  }, [looked]);
  const change = (members) => changeQuery({ page: "", ...members });

  const attributes = useLoad(knownAttributes, [], { every: SELDOM });
  const groups = useLoad(async (signal) => own ?? (await ifAllowed(get("v1/inventory/groups", undefined, { signal })))?.data ?? null, [], { every: SELDOM });
  const filters = useLoad(async (signal) => (own ? [] : ((await ifAllowed(get("v2/inventory/filters", { per_page: 500 }, { signal })))?.data ?? [])), [], { every: SELDOM });
  const states = useLoad(async (signal) => (own ? {} : ((await ifAllowed(counts(signal))) ?? {})), [], { every: OFTEN });
  const search = (signal) => searchOf(query, signal);
  const shown = useMemo(() => [...new Set([...columns, "tags/name"])].map(attributeOf), [columns]);
  const found = usePages(
    async (range, signal) => find({ ...(await search(signal)), attributes: shown, ...range }, signal),
    [looked, query.sort, shown],
    // A text is looked for in every value of every device: of a large fleet not each few seconds.
    { page, perPage, turn, every: query.q ? SELDOM : OFTEN },
  );
  // Of what is looked for now; how many there were of something else is nobody's business.
  const total = found.isOld ? 0 : (found.data?.total ?? 0);

  const reload = () => [found, states, groups, filters].forEach((one) => one.reload());
  const count = isAll ? total : chosen.size;
  const act = async (kind) => {
    const who = isAll ? { search: await search() } : { ids: [...chosen], group: query.group === NO_GROUP ? undefined : query.group };
    setOpened({ bulk: kind, count, who });
  };
  const kept = filters.data?.find((filter) => filter.id === query.filter);
  const close = () => setOpened(undefined);
  const target = targetOf(query);
  const mayChoose = possible(query.status, query.group).length > 0 || may(DEPLOY, { group: query.group });
  const actions = html`
    ${target && may(DEPLOY, target) && html`<a class="button" href=${to(["rollouts", "new"], target)}>Roll out to this group</a>`}
    <button type="button" onClick=${() => setOpened("columns")}>Columns</button>
    <button type="button" disabled=${total === 0} onClick=${() => setOpened("export")}>Export</button>
    ${may(MANAGE_DEVICES) && html`<button type="button" onClick=${() => setOpened("expect")}>Expect a device</button>`}
  `;
  return html`
    <${Page} title="Devices" actions=${actions}>
      <nav class="tabs" aria-label="Status">
        ${["", ...STATES].map((status) => {
          const many = status ? states.data?.[status] : states.data?.all;
          if ((status === "preauthorized" || status === "noauth") && !many && query.status !== status) return null;
          return html`<a href=${to(["devices"], { ...query, status, page: "" })} aria-current=${(query.status ?? "") === status ? "page" : undefined}>
            ${status ? (STATE_NAMES[status] ?? status) : "all"}${many !== undefined && html` <small>(${number(many)})</small>`}
          </a>`;
        })}
      </nav>
      <${SearchForm} query=${query} change=${change} known=${attributes.data ?? []} groups=${groups.data ?? (groups.loading ? [] : undefined)} filters=${filters.data} own=${own} keep=${may(MANAGE_DEVICES) && (() => setOpened("keep"))} />
      ${kept && html`<${Kept} filter=${kept} edit=${() => setOpened("edit")} drop=${() => setOpened("drop")} />`}
      <${Loaded} of=${found}>${(answer) => html`
        ${(chosen.size > 0 || isAll) &&
        html`<${Chosen} group=${query.group} count=${count} total=${total} isCounted=${!isAll || !found.isOld} isAll=${isAll} chosen=${chosen} takeAll=${() => setIsAll(true)} status=${query.status} act=${act}
          none=${() => { setChosen(new Set()); setIsAll(false); }} />`}
        <${Table} caption="Devices" rows=${answer.data} keyOf=${(row) => row.id} href=${(row) => to(["devices", row.id])}
          order=${query.sort} onOrder=${(sort) => change({ sort })}
          chosen=${mayChoose ? (isAll ? new Set(answer.data.map((row) => row.id)) : chosen) : undefined}
          onChoose=${(next) => { setIsAll(false); setChosen(next); }}
          empty=${html`<${Nothing} query=${query} all=${states.data?.all} />`}
          columns=${[
            { name: "", title: "Device", show: nameOf },
            ...columns.map((key) => ({ name: key, title: titleOf(key), sort: true, show: (row) => html`<${Value} name=${key} value=${valueOf(row, key)} />` })),
          ]} />
        <${Pager} page=${page} perPage=${perPage} total=${answer.total} what=${answer.total === 1 ? "device" : "devices"} onPage=${turn} />
        ${answer.total > 1 &&
        html`<div class="filters">
          <${Choice} label="Order" options=${orders(columns, query.sort)} value=${query.sort} onChoice=${(sort) => change({ sort })} />
          <${Choice} label="Devices on a page" options=${PER_PAGE.map(String)} value=${String(perPage)} onChoice=${(per) => change({ per })} />
        </div>`}
      `}<//>
      ${opened === "columns" && html`<${Columns} columns=${columns} change=${setColumns} known=${attributes.data ?? []} close=${close} />`}
      ${opened === "export" && html`<${Export} search=${search} keys=${columns} total=${total} close=${close} />`}
      ${opened === "expect" && html`<${Expect} close=${close} done=${reload} />`}
      ${opened === "keep" && html`<${Keep} query=${query} close=${close} done=${(filter) => { filters.reload(); change({ filter, f: "", status: "", group: "" }); }} />`}
      ${opened === "edit" && kept && html`<${Rename} filter=${kept} query=${query} close=${close} reload=${filters.reload} done=${() => { filters.reload(); found.reload(); change({ f: "", status: "", group: "" }); }} />`}
      ${opened === "drop" &&
      kept &&
      html`<${Confirm} title=${`Remove the dynamic group ${kept.name}?`} name="Remove" close=${close}
        send=${async () => { await remove(`v2/inventory/filters/${segment(kept.id)}`); filters.reload(); change({ filter: "" }); }}>
        <p>Its devices stay as they are. Roll-outs for it that run go by what it says until now.</p>
      <//>`}
      ${opened?.bulk &&
      html`<${Bulk} kind=${opened.bulk} who=${opened.who} count=${opened.count} groups=${groups.data}
        close=${(done) => { close(); if (done) { setChosen(new Set()); setIsAll(false); reload(); } }} />`}
    <//>
  `;
}

/** The group that is looked at, static or dynamic, as a new roll-out wants it; nothing when the list shows a part of one. */
function targetOf({ q, status, f, group, filter }) {
  if (q || f || (status && status !== "accepted")) return undefined;
  if (group && group !== NO_GROUP && !filter) return { group };
  return filter && !group && !status ? { filter } : undefined;
}

/** The orders of a list; on a phone there is no head of a table that could be pressed. */
function orders(columns, now) {
  const known = [["", "as the server has them"]];
  for (const key of columns) known.push([`${key}:asc`, `${titleOf(key)} ↑`], [`${key}:desc`, `${titleOf(key)} ↓`]);
  if (now && !known.some(([order]) => order === now)) known.push([now, now]);
  return known;
}

/** What can be done with those that are ticked, or with all that are found. */
function Chosen({ count, total, isCounted, isAll, chosen, takeAll, status, group, act, none }) {
  const isTooMany = count > MOST_AT_ONCE;
  // Nothing is done to a number that is not known.
  if (!isCounted) return html`<${Note}><strong role="status">All that are found are chosen: they are being counted.</strong><button type="button" class="plain" onClick=${none}>Choose none</button><//>`;
  return html`
    <${Note}>
      <strong role="status">${counted(count, "device")} chosen</strong>
      ${!isAll && total > count && html`<button type="button" onClick=${takeAll}>Choose all ${number(total)} that are found</button>`}
      ${isTooMany
        ? html`<span>More than ${number(MOST_AT_ONCE)} at once are too many: search for fewer.</span>`
        : possible(status, group).map((kind) => html`<${Act} class=${ACTIONS[kind].danger ? "danger" : ""} act=${() => act(kind)}>${ACTIONS[kind].name}<//>`)}
      ${!isAll &&
      count <= NAMED_IN_ADDRESS &&
      (!status || status === "accepted") &&
      may(DEPLOY, { group }) &&
      html`<a class="button" href=${to(["rollouts", "new"], { devices: [...chosen].join(",") })}>Roll out to these</a>`}
      <button type="button" class="plain" onClick=${none}>Choose none</button>
    <//>
  `;
}

const Kept = ({ filter, edit, drop }) => html`
  <${Note}>
    <span>Dynamic group <strong>${filter.name}</strong>: ${filter.terms.map(describeTerm).join("; and ")}</span>
    ${may(MANAGE_DEVICES) &&
    html`<button type="button" onClick=${edit}>Change</button>
      <button type="button" class="danger" onClick=${drop}>Remove</button>`}
  <//>
`;

function Nothing({ query, all }) {
  const isSearch = query.q || query.group || query.filter || query.f;
  if (isSearch) return html`No device is like that. A search finds values that have the text in them, in the same letter case.`;
  if (query.status === "pending") return html`No device waits. One that calls for the first time appears here.`;
  if (query.status) return html`No device has this status.`;
  if (all) return html`No device is here.`;
  return html`No device has called yet. Set <code>ServerURL</code> to <code>${location.origin}</code> on one and start its client: it appears here and waits to be accepted.`;
}

const TEXT_IS_LEFT_OUT = "The text that is searched for cannot be kept: a dynamic group is made of filters.";

function Keep({ query, close, done }) {
  const [name, setName] = useState("");
  return html`
    <${Dialog} title="A dynamic group" close=${close}>
      <${Form} name="Keep" cancel=${close} send=${async () => {
        const { location: place } = await post("v2/inventory/filters", { name: name.trim(), terms: (await searchOf(query)).filters });
        say(`The dynamic group ${name.trim()} is there.`);
        close();
        done(place.split("/").pop());
      }}>
        <p>Whoever fits belongs to it, now and later:</p>
        <ul>${ownTerms(query).map((one) => html`<li>${describeTerm(one)}</li>`)}</ul>
        ${query.filter && html`<p>and what the dynamic group asks for that is chosen.</p>`}
        ${query.q && html`<${Note} kind="wait">${TEXT_IS_LEFT_OUT}<//>`}
        <${Field} label="Name" required maxlength="256" value=${name} onInput=${(event) => setName(event.target.value)} />
      <//>
    <//>
  `;
}

/** What is kept of a dynamic group. */
const saved = ({ name, terms }) => ({ name, terms });

/** Another name for a dynamic group, and what else it is to ask for. */
function Rename({ filter, query, close, done, reload }) {
  // As it was when one began: the list asks again meanwhile.
  const [began] = useState(filter);
  const [name, setName] = useState(filter.name);
  const [terms, setTerms] = useState(filter.terms);
  const more = ownTerms(query);
  return html`
    <${Dialog} title=${`Change ${filter.name}`} close=${close}>
      <${Form} cancel=${close} ready=${terms.length > 0} send=${async () => {
        const path = `v2/inventory/filters/${segment(filter.id)}`;
        const wanted = { name: name.trim(), terms };
        await unlessChanged(path, {
          began: saved(began),
          wanted,
          of: saved,
          words: "Somebody else has changed this group since you began, so nothing was saved. Cancel, look at it, and begin again.",
          reload,
          send: (etag) => put(path, wanted, { etag }),
        });
        close();
        done();
      }}>
        <${Field} label="Name" required maxlength="256" value=${name} onInput=${(event) => setName(event.target.value)} />
        <h3>All of these hold for its devices</h3>
        <ul class="choices">
          ${terms.map(
            (one, at) => html`<li key=${JSON.stringify(one)}>
              <span>${describeTerm(one)}</span>
              <button type="button" onClick=${() => setTerms(terms.filter((_, other) => other !== at))} aria-label=${`Without: ${describeTerm(one)}`}>✕</button>
            </li>`,
          )}
        </ul>
        ${terms.length === 0 && html`<${Empty}>A dynamic group asks for one thing at least.<//>`}
        ${more
          .filter((one) => !terms.some((other) => JSON.stringify(other) === JSON.stringify(one)))
          .map((one) => html`<p><button type="button" onClick=${() => setTerms([...terms, one])}>Also: ${describeTerm(one)}</button></p>`)}
        <p class="quiet">What you filter for beside the group can be added here.</p>
      <//>
    <//>
  `;
}

/** Lets a device in before it has called: whoever calls with this identity and this key is accepted. */
function Expect({ close, done }) {
  const [identity, setIdentity] = useState("");
  const [key, setKey] = useState("");
  const parsed = () => {
    const lines = identity.split("\n").map((line) => line.trim()).filter(Boolean);
    return Object.fromEntries(
      lines.map((line) => {
        const at = line.indexOf("=");
        if (at < 1) throw new Error(`“${line}” is no NAME=VALUE.`);
        return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
      }),
    );
  };
  return html`
    <${Dialog} title="Expect a device" close=${close}>
      <${Form} name="Accept it when it calls" cancel=${close} send=${async () => {
        try {
          await post("v2/devauth/devices", { identity_data: parsed(), pubkey: key.trim() });
        } catch (error) {
          if (error.status === 409) throw new Error("A device with this identity is known already.");
          throw error;
        }
        say("It is accepted when it calls.");
        close();
        done();
      }}>
        <${Field} label="Identity" hint="NAME=VALUE, one a line, as the device says it: mac=00:11:22:33:44:55">${(id, said) => html`
          <textarea id=${id} aria-describedby=${said} rows="3" required value=${identity} onInput=${(event) => setIdentity(event.target.value)}></textarea>`}<//>
        <${Field} label="Public key" hint="PEM, of the key on the device">${(id, said) => html`
          <textarea id=${id} aria-describedby=${said} rows="5" required value=${key} onInput=${(event) => setKey(event.target.value)}></textarea>`}<//>
      <//>
    <//>
  `;
}
