// Why devices fail: what some of them have said, put together where it is the same.

import { html, useRef } from "../html.js";
import { get, segment } from "../api.js";
import { Loaded, Table, useLoad } from "../ui.js";
import { counted } from "../words.js";
import { to } from "../route.js";
import { useNames } from "./names.js";

/** Devices that are looked at, and logs that are read: a fleet has more of both. */
const SAMPLE = 50;
const LOGS = 10;
const AT_ONCE = 4;

/** The line of a log that says what went wrong: the last one that is about an error, else the last. */
export function lineOf(log) {
  const lines = log.trimEnd().split("\n").filter(Boolean);
  const isError = (line) => /\b(error|fatal|panic|critical)\b/i.test(line);
  return lines.findLast(isError) ?? lines.at(-1) ?? "";
}

/** A line without what differs from one device to the next. */
export function causeOf(line) {
  return line
    .replace(/^\S*\d{4}-\d\d-\d\dT\S+\s+/, "")
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi, "…")
    .replace(/\b[0-9a-f]{12,}\b/gi, "…")
    .replace(/\d+(\.\d+)*/g, "…")
    .trim()
    .slice(0, 300);
}

/** `[{words, example, devices}]`, the most frequent first, of `[{id, substate, log}]`. */
export function grouped(failed) {
  const groups = new Map();
  for (const { id, substate, log } of failed) {
    const line = log ? lineOf(log).replace(/^\S*\d{4}-\d\d-\d\dT\S+\s+/, "") : (substate ?? "");
    const key = causeOf(line);
    const group = groups.get(key) ?? { key, words: line || "It has said nothing about it.", devices: [] };
    group.devices.push(id);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.devices.length - a.devices.length || a.key.localeCompare(b.key));
}

/** The more have failed, the seldomer they are asked for anew. */
const step = (count) => (count <= SAMPLE ? count : SAMPLE + Math.floor(Math.log2(count / SAMPLE) * 4));

export function Failures({ path, failed, onLog }) {
  const logs = useRef(new Map());
  const sample = useLoad(async (signal) => {
    const found = await get(`${path}/devices/list`, { status: "failure", per_page: SAMPLE }, { signal });
    const wanted = found.data.filter((device) => device.log && !device.substate).slice(0, LOGS);
    const more = found.data.filter((device) => device.log && device.substate).slice(0, Math.max(0, LOGS - wanted.length));
    const reading = [...wanted, ...more].filter((device) => !logs.current.has(device.id));
    while (reading.length) {
      await Promise.all(reading.splice(0, AT_ONCE).map(async ({ id }) => {
        // A log that cannot be read leaves the device with what else it has said.
        const log = await get(`${path}/devices/${segment(id)}/log`, undefined, { signal }).catch(() => null);
        logs.current.set(id, typeof log?.data === "string" ? lineOf(log.data) : undefined);
      }));
    }
    return { total: found.total, looked: found.data.length, groups: grouped(found.data.map((device) => ({ ...device, log: logs.current.get(device.id) }))) };
  }, [path, step(failed)]);
  const names = useNames((sample.data?.groups ?? []).flatMap((group) => group.devices.slice(0, 3)));
  return html`<${Loaded} of=${sample}>${(data) => html`
    <p class="quiet">${data.looked < data.total ? `A sample of ${data.looked} of ${counted(data.total, "device")} that failed` : `All ${counted(data.total, "device")} that failed`}. The logs of ${LOGS} at most were read.</p>
    <${Table} caption="Failures by what the devices have said" rows=${data.groups} keyOf=${(row) => row.key} empty="None has failed."
      columns=${[
        { title: "What was said", show: (row) => row.words },
        { title: "Devices", number: true, show: (row) => row.devices.length },
        { title: "Such as", show: (row) => html`<span>${row.devices.slice(0, 3).map((id, at) => html`${at > 0 && ", "}<a class=${names[id] ? "" : "id"} href=${to(["devices", id])}>${names[id] || id}</a>`)}</span>` },
        { title: "Log", show: (row) => { const id = row.devices.find((one) => logs.current.get(one)); return id ? html`<button type="button" onClick=${() => onLog(id)}>Read one<span class="unseen">: the log of ${id}</span></button>` : html`<span class="quiet">none was read</span>`; } },
      ]} />
  `}<//>`;
}
