// Attributes of devices: their names in addresses and tables, and their values in words.
//
// An attribute is named by a key, `inventory/device_type`: its scope has no `/`, its name may have some.

import { html } from "../html.js";
import { get } from "../api.js";
import { Status, Time } from "../ui.js";
import { short } from "../words.js";

export const STATUS = "identity/status";
export const GROUP = "system/group";
export const HEARD = "system/check_in_time";

const TITLES = {
  [STATUS]: "Status",
  [GROUP]: "Group",
  [HEARD]: "Last heard of",
  "system/created_ts": "First heard of",
  "system/updated_ts": "Changed",
  "inventory/device_type": "Device type",
  "inventory/artifact_name": "Software",
  "inventory/hostname": "Host name",
  "monitor/alerts": "Alerts",
};

export const keyOf = ({ scope, name, attribute }) => `${scope}/${name ?? attribute}`;

export function attributeOf(key) {
  const at = key.indexOf("/");
  return { scope: key.slice(0, at), attribute: key.slice(at + 1) };
}

export function titleOf(key) {
  const { scope, attribute } = attributeOf(key);
  return TITLES[key] ?? (scope === "inventory" ? attribute : `${attribute} (${scope})`);
}

/** Whether its values are moments. */
export const isTime = (key) => [HEARD, "system/created_ts", "system/updated_ts"].includes(key);

/** A value as text: what devices report may be text, a number, a list, or anything else. */
export function textOf(value) {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.map(textOf).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export const valueOf = (device, key) => device.attributes?.find((one) => keyOf(one) === key)?.value;

/** Refuses rows of a form of which one has no name, or two have the same. */
export function named(rows, what) {
  const names = rows.map((row) => row.name);
  if (names.includes("")) throw new Error(`Each ${what} needs a name.`);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice) throw new Error(`Two ${what}s are named ${twice}.`);
}

/** What a person calls the device: its tag `name`, what it is known by, or the beginning of its id. */
export function nameOf(device) {
  return textOf(valueOf(device, "tags/name")) || (device.identities ?? []).filter(Boolean).join(" · ") || short(device.id);
}

export function Value({ name, value }) {
  if (value === undefined || value === null || value === "") return html`<span class="quiet">–</span>`;
  if (name === STATUS) return html`<${Status} value=${value} />`;
  if (name === "monitor/alerts") return html`<${Status} value=${value ? "CRITICAL" : "OK"}>${value ? "alert" : "none"}<//>`;
  return isTime(name) ? html`<${Time} at=${value} />` : textOf(value);
}

/** Keys of all attributes that some device has, and how many have it. */
export async function knownAttributes(signal) {
  const { data } = await get("v2/inventory/filters/attributes", undefined, { signal });
  const counts = new Map(Object.keys(TITLES).map((key) => [key, 0]));
  for (const one of data) counts.set(keyOf(one), one.count ?? 0);
  return [...counts].map(([key, count]) => ({ key, count })).sort((a, b) => a.key.localeCompare(b.key));
}
