// What is looked for in the list of devices: the address, the terms of the API, and the form between them.

import { html, useEffect, useState } from "../html.js";
import { get, post, segment } from "../api.js";
import { Choice, Field, changed, presses } from "../ui.js";
import { localTime } from "../words.js";
import { GROUP, STATUS, attributeOf, isTime, keyOf, textOf, titleOf } from "./attributes.js";

export const OPERATORS = [
  ["$eq", "is"],
  ["$ne", "is not"],
  ["$in", "is one of"],
  ["$nin", "is none of"],
  ["$gt", "is above"],
  ["$gte", "is at least"],
  ["$lt", "is below"],
  ["$lte", "is at most"],
  ["$regex", "begins as the pattern"],
  ["$exists", "is there"],
];
const KINDS = [
  ["text", "text"],
  ["number", "number"],
  ["truth", "yes or no"],
];
/** Rows of one search. The server takes 50 terms, and the group, the status and a dynamic group need theirs. */
const MOST_ROWS = 20;
/** In the address in place of a group: devices that are in none. */
export const NO_GROUP = "*none";

const term = (key, type, value) => ({ ...attributeOf(key), type, value });

/** The rows in the address, `[["inventory/device_type","$eq","board"]]`. Anybody may have written them. */
export function rowsOf(query) {
  let list;
  try {
    list = JSON.parse(query.f ?? "[]");
  } catch {
    return [];
  }
  const isRow = (row) =>
    Array.isArray(row) && typeof row[0] === "string" && row[0].includes("/") && OPERATORS.some(([type]) => type === row[1]) && row.length === 3;
  return Array.isArray(list) ? list.filter(isRow).slice(0, MOST_ROWS).map(([key, type, value]) => term(key, type, value)) : [];
}
const rowsToAddress = (terms) =>
  terms.length ? JSON.stringify(terms.map((one) => [keyOf(one), one.type, one.value])) : "";

/** The terms that are of the address itself: without those of the dynamic group. */
export function ownTerms(query) {
  const terms = [];
  // The group is the first: whose role is limited to a group is let in by the first one that is named.
  if (query.group === NO_GROUP) terms.push(term(GROUP, "$exists", false));
  else if (query.group) terms.push(term(GROUP, "$eq", query.group));
  if (query.status) terms.push(term(STATUS, "$eq", query.status));
  return [...terms, ...rowsOf(query)];
}

/** What the address looks for, as a search of the API. */
export async function searchOf(query, signal) {
  const filters = ownTerms(query);
  if (query.filter) {
    const kept = await get(`v2/inventory/filters/${segment(query.filter)}`, undefined, { signal });
    filters.push(...kept.data.terms);
  }
  const search = { filters, text: query.q ?? "" };
  if (query.sort) {
    const at = query.sort.lastIndexOf(":");
    search.sort = [{ ...attributeOf(query.sort.slice(0, at)), order: query.sort.slice(at + 1) === "desc" ? "desc" : "asc" }];
  }
  return search;
}

export const find = (search, signal) => post("v2/inventory/filters/search", search, { signal });

/** A term as somebody writes it, and back. */
function written({ type, value, ...attribute }) {
  const one = Array.isArray(value) ? value[0] : value;
  const kind = typeof one === "number" ? "number" : typeof one === "boolean" && type !== "$exists" ? "truth" : "text";
  return { key: keyOf(attribute), type, kind, text: textOf(value) };
}
function read({ key, type, kind, text }) {
  const one = (part) => {
    if (kind === "truth") return part === "true";
    if (kind === "text") return part;
    if (part.trim() === "" || Number.isNaN(Number(part))) throw new Error(`“${part}” is no number.`);
    return Number(part);
  };
  if (type === "$exists") return term(key, type, text !== "false");
  if (type === "$in" || type === "$nin") return term(key, type, text.split(",").map((part) => one(part.trim())));
  return term(key, type, type === "$regex" ? text : one(text));
}

export const describeTerm = (one) => {
  const name = titleOf(keyOf(one));
  if (one.type === "$exists") return `${name} is ${one.value ? "" : "not "}there`;
  return `${name} ${OPERATORS.find(([type]) => type === one.type)?.[1] ?? one.type} ${textOf(one.value)}`;
};

/** `groups` is undefined for those who may not list them; `own` are those of whoever sees no others; `keep` is not there for everybody. */
export function SearchForm({ query, change, known, groups, filters, own, keep }) {
  const [text, setText] = useState(query.q ?? "");
  const [rows, setRows] = useState(() => rowsOf(query).map(written));
  const [error, setError] = useState();
  useEffect(() => setText(query.q ?? ""), [query.q]);
  useEffect(() => setRows(rowsOf(query).map(written)), [query.f]);
  const submit = (event) => {
    event.preventDefault();
    try {
      change({ q: text.trim(), f: rowsToAddress(rows.map(read)) });
      setError(undefined);
    } catch (wrong) {
      setError(wrong);
    }
  };
  const setRow = (at, members) => setRows(changed(rows, at, members));
  const isUsed = text || rows.length || query.group || query.filter;
  return html`
    <form onSubmit=${submit} role="search" aria-label="Devices">
      <div class="filters">
        <${Field} label="Search" type="search" placeholder="part of a value" value=${text} onInput=${(event) => setText(event.target.value)} />
        <${Groups} groups=${groups} own=${own} value=${query.group} change=${(group) => change({ group })} />
        ${filters?.length > 0 &&
        html`<${Choice} label="Dynamic group" value=${query.filter} options=${[["", "any"], ...filters.map(({ id, name }) => [id, name])]} onChoice=${(filter) => change({ filter })} />`}
        <button type="submit" class="main">Search</button>
        <button ...${presses(() => setRows([...rows, { key: "inventory/device_type", type: "$eq", kind: "text", text: "" }]), rows.length >= MOST_ROWS)}>
          Add a filter
        </button>
        ${isUsed &&
        html`<button type="button" onClick=${() => { setText(""); setRows([]); change({ q: "", f: "", group: "", filter: "" }); }}>Clear</button>`}
        ${keep && ownTerms(query).length > 0 && html`<button type="button" onClick=${keep}>Keep as a dynamic group</button>`}
      </div>
      ${rows.map(
        (row, at) => html`
          <fieldset class="filters" key=${at}>
            <legend class="unseen">Filter ${at + 1}</legend>
            <${Row} row=${row} known=${known} set=${(members) => setRow(at, members)} />
            <button type="button" onClick=${() => setRows(rows.filter((_, other) => other !== at))} aria-label=${`Take filter ${at + 1} away`}>✕</button>
          </fieldset>
        `,
      )}
      ${error && html`<div class="note bad" role="alert">${error.message}</div>`}
    </form>
  `;
}

function Groups({ groups, own, value, change }) {
  if (!groups) return html`<${Field} label="Group" value=${value ?? ""} onChange=${(event) => change(event.target.value.trim())} />`;
  const any = own ? [] : [["", "any"], [NO_GROUP, "in no group"]];
  const unknown = value && value !== NO_GROUP && !groups.includes(value) ? [value] : [];
  return html`<${Choice} label="Group" value=${value} options=${[...any, ...unknown, ...groups]} onChoice=${change} />`;
}

function Row({ row, known, set }) {
  const keys = new Set([row.key, ...known.map((one) => one.key)]);
  const byScope = grouped(keys);
  const hasKind = !["$exists", "$regex"].includes(row.type) && !isTime(row.key);
  const setType = (type) => {
    const isOther = (row.type === "$exists") !== (type === "$exists");
    set({ type, text: isOther ? (type === "$exists" ? "true" : "") : row.text, kind: type === "$regex" ? "text" : row.kind });
  };
  const setKey = (key) => set({ key, kind: key === "monitor/alerts" ? "truth" : "text", text: key === "monitor/alerts" ? "true" : row.text });
  return html`
    <${Field} label="Attribute">${(id) => html`
      <select id=${id} value=${row.key} onChange=${(event) => setKey(event.target.value)}>
        ${[...byScope].map(
          ([scope, inside]) => html`<optgroup label=${scope}>
            ${inside.map((key) => html`<option value=${key} selected=${key === row.key}>${attributeOf(key).attribute}</option>`)}
          </optgroup>`,
        )}
      </select>`}<//>
    <${Choice} label="Comparison" options=${OPERATORS} value=${row.type} onChoice=${setType} />
    <${RowValue} row=${row} set=${set} />
    ${hasKind && html`<${Choice} label="Read as" options=${KINDS} value=${row.kind} onChoice=${(kind) => set({ kind, text: kind === "truth" ? "true" : row.text })} />`}
  `;
}

function grouped(keys) {
  const found = new Map();
  for (const key of keys) {
    const { scope } = attributeOf(key);
    found.set(scope, [...(found.get(scope) ?? []), key]);
  }
  return found;
}

const TRUTH = [
  ["true", "yes"],
  ["false", "no"],
];

function RowValue({ row, set }) {
  if (row.type === "$exists" || row.kind === "truth") {
    return html`<${Choice} label="Value" options=${TRUTH} value=${row.text === "false" ? "false" : "true"} onChoice=${(text) => set({ text })} />`;
  }
  if (isTime(row.key) && ["$gt", "$gte", "$lt", "$lte"].includes(row.type)) {
    const change = (event) => event.target.value && set({ text: new Date(event.target.value).toISOString() });
    return html`<${Field} label="Value" type="datetime-local" required value=${localTime(row.text)} onChange=${change} />`;
  }
  const hint = row.type === "$in" || row.type === "$nin" ? "with commas in between" : undefined;
  return html`<${Field} label="Value" hint=${hint} value=${row.text} onInput=${(event) => set({ text: event.target.value })} />`;
}
