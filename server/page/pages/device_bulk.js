// What is done to many devices at once: first who they are, then each of them, then those with whom it did not work.

import { html, useEffect, useRef, useState } from "../html.js";
import { call, get, post, put, remove, segment } from "../api.js";
import { Dialog, Field, Form, Note, Problem, Table } from "../ui.js";
import { counted, number } from "../words.js";
import { to } from "../route.js";
import { GROUP, STATUS, attributeOf, nameOf, valueOf } from "./attributes.js";
import { GroupField } from "./choose.js";
import { find } from "./device_search.js";

/** Devices of one action: more of them are ordered by a roll-out or a script, not by a window that has to stay open. */
export const MOST_AT_ONCE = 10000;
/** Devices of one question: the longest page of the server. */
const PER_QUESTION = 500;
/** Requests at the same time. */
const AT_ONCE = 4;
/** Failures that are shown one by one. */
const FAILURES = 200;

function* pieces(list, size) {
  for (let from = 0; from < list.length; from += size) yield list.slice(from, from + size);
}

/** Who is meant, as the server knows them now. */
async function gather({ ids, search, group }, signal) {
  const question = { attributes: [attributeOf(STATUS), attributeOf(GROUP)], per_page: PER_QUESTION };
  const found = [];
  if (ids) {
    const filters = group ? [{ ...attributeOf(GROUP), type: "$eq", value: group }] : [];
    for (const some of pieces(ids, PER_QUESTION)) {
      found.push(...(await find({ ...question, filters, device_ids: some }, signal)).data);
    }
    return found;
  }
  for (let page = 1; ; page += 1) {
    const { data, total } = await find({ ...question, ...search, page }, signal);
    if (total > MOST_AT_ONCE) throw new Error(`${number(total)} devices are more than ${number(MOST_AT_ONCE)}: search for fewer.`);
    found.push(...data);
    if (data.length < PER_QUESTION) return found;
  }
}

/** The keys of devices, by the id of the device. */
async function keysOf(devices, signal) {
  const ids = devices.map((device) => device.id);
  try {
    const { data } = await post("v2/devauth/devices/search", { id: ids }, { signal, query: { per_page: PER_QUESTION } });
    return new Map(data.map((device) => [device.id, device]));
  } catch (error) {
    if (error.status !== 403) throw error;
  }
  // Whose role is limited to a group may ask for each device of it, and for no list.
  const found = new Map();
  for (const id of ids) {
    try {
      found.set(id, (await get(`v2/devauth/devices/${segment(id)}`, undefined, { signal })).data);
    } catch (error) {
      // One that is gone, or in another group since.
      if (error.status !== 404 && error.status !== 403) throw error;
    }
  }
  return found;
}

// What changes something is not cut off by a stop: what has begun is done, and counted.
const decide = (device, set, status) => put(`v2/devauth/devices/${segment(device.id)}/auth/${segment(set.id)}/status`, { status });

async function accept(device) {
  // A second key of a device that is in may be a stranger's: it is decided about on the page of the device, where it is seen.
  if (device.status === "accepted") return;
  const waiting = device.auth_sets.filter((set) => set.status === (device.status === "rejected" ? "rejected" : "pending"));
  if (waiting.length > 1) throw new Error(`${waiting.length} of its keys wait: choose one on its page.`);
  if (waiting.length === 0) throw new Error("It has no key that could be accepted.");
  await decide(device, waiting[0], "accepted");
}

async function reject(device) {
  for (const set of device.auth_sets.filter((one) => one.status !== "rejected")) await decide(device, set, "rejected");
}

/** Does `one(device)` to all, some at a time, and says who failed. */
async function each(devices, one, job) {
  const left = devices.values();
  const worker = async () => {
    for (const device of left) {
      if (job.signal.aborted) return;
      try {
        await one(device);
      } catch (error) {
        job.failed(device, 1, error.message);
        job.done(1);
        if (error.isLost || error.status === 401) return;
        continue;
      }
      job.done(1);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function eachWithKeys(devices, one, job) {
  for (const some of pieces(devices, PER_QUESTION)) {
    if (job.signal.aborted) return;
    const known = await keysOf(some, job.signal);
    await each(some, (device) => {
      const found = known.get(device.id);
      if (!found) throw new Error("It is not there any more.");
      return one(found);
    }, job);
  }
}

/** Moves devices by whole lists; of a list of which not all were found it is not said who is missing. */
async function move(devices, method, group, job) {
  for (const some of pieces(devices, PER_QUESTION)) {
    if (job.signal.aborted) return;
    const ids = some.map((device) => device.id);
    try {
      const { data } = await call(method, `v1/inventory/groups/${segment(group)}/devices`, { json: ids });
      const missing = ids.length - data.matched_count;
      if (missing > 0) job.failed(null, missing, `${counted(missing, "device")} of these ${ids.length} ${missing === 1 ? "was" : "were"} not there any more.`);
    } catch (error) {
      for (const device of some) job.failed(device, 1, error.message);
    }
    job.done(some.length);
  }
}

async function takeOut(devices, job) {
  const byGroup = new Map();
  for (const device of devices) {
    const group = valueOf(device, GROUP);
    if (group) byGroup.set(group, [...(byGroup.get(group) ?? []), device]);
    else job.done(1);
  }
  for (const [group, inside] of byGroup) await move(inside, "DELETE", group, job);
}

export const ACTIONS = {
  accept: {
    name: "Accept",
    says: "These may talk to this server, load updates and report from now on.",
    run: (devices, job) => eachWithKeys(devices, accept, job),
  },
  reject: {
    name: "Reject",
    danger: true,
    says: "All their keys are refused: they get no updates, and are cut off at once.",
    run: (devices, job) => eachWithKeys(devices, reject, job),
  },
  group: {
    name: "Put into a group",
    says: "A device is in one group at a time: whoever is in another one leaves it.",
    run: (devices, job, group) => move(devices, "PATCH", group, job),
  },
  ungroup: { name: "Take out of their groups", says: "Groups that become empty are gone.", run: takeOut },
  decommission: {
    name: "Decommission",
    danger: true,
    counted: true,
    says: "The server forgets them: keys, inventory, tags, groups and alerts. One that calls again is a new device.",
    run: (devices, job) => each(devices, (device) => remove(`v2/devauth/devices/${segment(device.id)}`), job),
  },
};

/**
 * Asks, does it, and says what came of it. `who` is `{ids, group}` or `{search}`, `count` how many that are; `close(done)` ends it.
 */
export function Bulk({ kind, who, count, groups, close }) {
  const action = ACTIONS[kind];
  const [group, setGroup] = useState("");
  const [typed, setTyped] = useState("");
  const [state, setState] = useState({});
  const ended = useRef(new AbortController());
  const live = useRef({ done: 0, failures: [] });
  useEffect(() => () => ended.current.abort(), []);
  const begin = () => {
    const now = live.current;
    const show = () => setState((before) => ({ ...before, done: now.done, failures: [...now.failures] }));
    let shown = 0;
    const job = {
      signal: ended.current.signal,
      done: (some) => {
        now.done += some;
        if (Date.now() - shown < 100) return;
        shown = Date.now();
        show();
      },
      failed: (device, count, why) => now.failures.push({ device, count, why }),
    };
    const work = async () => {
      try {
        const devices = await gather(who, job.signal);
        // What was typed was about those that were seen; a list that is another now is looked at again first.
        if (action.counted && devices.length !== count) {
          throw new Error(`These are ${counted(devices.length, "device")} now, and not ${number(count)}. Nothing was done: look at them again.`);
        }
        setState({ running: true, all: devices.length, done: 0, failures: [] });
        await action.run(devices, job, group.trim());
      } catch (error) {
        if (error.name !== "AbortError") setState((before) => ({ ...before, error }));
      }
      setState((before) => ({ ...before, running: false, ended: true, stopped: job.signal.aborted, done: now.done, failures: [...now.failures] }));
    };
    setState({ running: true, done: 0, failures: [] });
    work();
  };
  const title = `${action.name}: ${counted(count, "device")}`;
  if (!state.running && !state.ended) {
    return html`
      <${Dialog} title=${title} close=${() => close(false)}>
        <${Form} name=${action.name} danger=${action.danger} cancel=${() => close(false)} send=${async () => begin()}>
          <p>${action.says}</p>
          ${kind === "group" &&
          html`<${GroupField} value=${group} groups=${groups} onGroup=${setGroup} />`}
          ${action.counted && count > 1 &&
          html`<${Field} label=${`To be sure, type how many these are: ${count}`} inputmode="numeric" required pattern=${String(count)} autocomplete="off"
            value=${typed} onInput=${(event) => setTyped(event.target.value)} />`}
        <//>
      <//>
    `;
  }
  const failures = state.failures;
  const failed = failures?.reduce((sum, one) => sum + one.count, 0);
  const left = (state.all ?? state.done) - state.done;
  return html`
    <${Dialog} title=${title} stays=${state.running} close=${() => close(true)}>
      ${state.running
        ? html`
            <p role="status">${state.all === undefined ? "Asking who these are…" : `${number(state.done)} of ${counted(state.all, "device")}. Leave this window open.`}</p>
            <progress max=${state.all ?? 1} value=${state.all === undefined ? undefined : state.done} aria-label="How many are done"></progress>
            <div class="actions"><button type="button" onClick=${() => ended.current.abort()}>Stop</button></div>
          `
        : html`
            ${state.error && html`<${Problem} error=${state.error} />`}
            <${Note} kind=${failures.length || state.error || state.stopped ? "wait" : "good"}>
              <span role="status">
                ${state.stopped ? "Stopped. " : ""}${counted(state.done - failed, "device")} done${failed ? `, ${number(failed)} not` : ""}${left ? `, ${number(left)} not begun` : ""}.
              </span>
            <//>
            ${failures.length > 0 &&
            html`<${Table} caption="With whom it did not work" rows=${failures.slice(0, FAILURES)} keyOf=${(row) => row.device?.id ?? row.why}
              columns=${[
                { title: "Device", show: (row) => (row.device ? html`<a href=${to(["devices", row.device.id])}>${nameOf(row.device)}</a>` : "some") },
                { title: "Why", show: (row) => row.why },
              ]} />`}
            ${failures.length > FAILURES && html`<p class="quiet">and ${number(failures.length - FAILURES)} more</p>`}
            <div class="actions"><button type="button" class="main" onClick=${() => close(true)}>Close</button></div>
          `}
    <//>
  `;
}
