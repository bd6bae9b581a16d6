// A roll-out before it is made: what a person fills in, the body that the API wants of it, and what the server's answers mean in
// words. Nothing here knows the page or asks the server.

import { bytes, counted, localTime, number, sentence } from "../words.js";

const HOUR = 3600 * 1000;
export const DAY = 24 * HOUR;
/** The server's bound for a body is 1 MiB; an id has 39 bytes in it. */
export const MOST_DEVICES = 20000;

/** Before what a device can be made to wait, and the state of it in an update control map. */
export const PAUSES = [
  ["installing", "ArtifactInstall_Enter"],
  ["rebooting", "ArtifactReboot_Enter"],
  ["committing", "ArtifactCommit_Enter"],
];
export const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/** What is there before anything is filled in: with a name, a release and a target it can be made as it is. */
export const newPlan = () => ({
  name: "",
  release: "",
  target: { kind: "", group: "", filter: "", devices: "", most: "" },
  unit: "percent",
  canaries: { on: false, count: "5", spread: "device_type" },
  phases: [],
  retries: "0",
  stop: [newRule()],
  windows: { on: false, open: [newWindow()], offset: "" },
  budget: { mib: "", loading: "" },
  force: false,
  delta: false,
  pauses: { installing: false, rebooting: false, committing: false },
});
export const newRule = () => ({ kind: "percent", most: "20", after: "10", within: "", then: "hold" });
export const newWindow = () => ({ days: [], from: "22:00", to: "05:00" });
const newPhase = (size, start) => ({ size, start });

/** Whole hours look like a decision; 10:37 does not. */
const inDays = (count, now) => localTime(Math.ceil((now + count * DAY) / HOUR) * HOUR);

/** Ways to share the devices out. */
export const SHAPES = {
  once: { title: "All at once", make: () => ({ phases: [], canaries: false }) },
  steps: {
    title: "5 %, then 25 %, then the rest, a day apart",
    make: (now) => ({
      unit: "percent",
      canaries: false,
      phases: [newPhase("5", ""), newPhase("25", inDays(1, now)), newPhase("", inDays(2, now))],
    }),
  },
  canaries: {
    title: "Chosen devices first, the rest a day later",
    make: (now) => ({ canaries: true, phases: [newPhase("", ""), newPhase("", inDays(1, now))] }),
  },
};

/** The plan with one phase more, a day behind the last. */
export function withPhase(plan, now) {
  if (plan.phases.length === 0) return { ...plan, phases: [newPhase("10", ""), newPhase("", inDays(1, now))] };
  const last = plan.phases.at(-1);
  const start = Date.parse(last.start) || now;
  const sized = { ...last, size: plan.unit === "percent" ? "25" : "100" };
  return { ...plan, phases: [...plan.phases.slice(0, -1), sized, newPhase("", localTime(start + DAY))] };
}

/** The plan without one phase; a single one is none. */
export function withoutPhase(plan, at) {
  const phases = plan.phases.filter((_, other) => other !== at);
  if (phases.length < 2) return { ...plan, phases: [], canaries: { ...plan.canaries, on: false } };
  if (at > 0) return { ...plan, phases };
  return { ...plan, phases: [{ ...phases[0], start: "" }, ...phases.slice(1)], canaries: { ...plan.canaries, on: false } };
}

export const idsOf = (text) => [...new Set(text.split(/[\s,;]+/).filter(Boolean))];

const count = (text) => (String(text).trim() === "" ? undefined : Number(text));
const iso = (text) => {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? undefined : time.toISOString();
};

function targetOf({ target }) {
  switch (target.kind) {
    case "all":
      return { all_devices: true };
    case "group":
      return { group: target.group };
    case "filter":
      return { filter_id: target.filter, max_devices: count(target.most) };
    default:
      return { devices: idsOf(target.devices) };
  }
}

function phasesOf({ phases, unit, canaries, target }) {
  const member = unit === "percent" && target.kind !== "filter" ? "batch_size" : "batch_size_devices";
  return phases.map(({ size, start }, at) => {
    const hasSize = at < phases.length - 1 && !(at === 0 && canaries.on);
    return { [member]: hasSize ? count(size) : undefined, start_ts: start ? iso(start) : undefined };
  });
}

const ruleOf = ({ kind, most, after, within, then }) => ({
  action: then,
  ...(kind === "percent"
    ? { failed_percent: count(most), after_devices: count(after) }
    : { failed_devices: count(most), within_seconds: within ? Math.round(60 * Number(within)) : undefined }),
});

/** An update control map of three ticks; of none, no map. `before` are those of a map that is in force: what they hold is let go on. */
export function controlMap(pauses, before = {}) {
  const states = {};
  for (const [name, state] of PAUSES) {
    if (pauses[name]) states[state] = { action: "pause" };
    else if (before[name]) states[state] = { action: "continue" };
  }
  return Object.keys(states).length ? { priority: 0, states } : undefined;
}

/** The ticks of a map. */
export const pausesOf = (map) =>
  Object.fromEntries(PAUSES.map(([name, state]) => [name, map?.states?.[state]?.action === "pause"]));

/** What the API wants. What nothing is asked of is left out. */
export function bodyOf(plan) {
  const { canaries, windows, budget } = plan;
  const own = {
    stop: plan.stop.length ? plan.stop.map(ruleOf) : undefined,
    windows: windows.on ? { open: windows.open, default_offset: windows.offset || undefined } : undefined,
    budget:
      budget.mib || budget.loading
        ? { bytes_per_hour: budget.mib ? Math.round(Number(budget.mib) * 1048576) : undefined, in_flight: count(budget.loading) }
        : undefined,
    canaries: canaries.on
      ? { count: count(canaries.count), spread_by: canaries.spread.split(/[\s,]+/).filter(Boolean) }
      : undefined,
  };
  return {
    name: plan.name.trim(),
    artifact_name: plan.release.trim(),
    ...targetOf(plan),
    phases: plan.phases.length ? phasesOf(plan) : undefined,
    retries: count(plan.retries) || undefined,
    force_installation: plan.force || undefined,
    autogenerate_delta: plan.delta || undefined,
    update_control_map: controlMap(plan.pauses),
    rust_ota: Object.values(own).some((value) => value !== undefined) ? own : undefined,
  };
}

/** What is missing before the server can be asked, by field. */
export function missing(plan) {
  const words = {};
  const { target, phases, canaries } = plan;
  if (!plan.name.trim()) words.name = "Give it a name.";
  if (!plan.release.trim()) words.release = "Choose a release.";
  if (!target.kind) words.target = "Choose which devices it is for.";
  if (target.kind === "group" && !target.group) words.target = "Choose a group.";
  if (target.kind === "filter" && !target.filter) words.target = "Choose a dynamic group.";
  if (target.kind === "devices") {
    const ids = idsOf(target.devices).length;
    if (ids === 0) words.target = "Name a device.";
    if (ids > MOST_DEVICES) words.target = `More than ${counted(MOST_DEVICES, "device")} cannot be named: put them into a group.`;
  }
  phases.forEach(({ size, start }, at) => {
    const isLast = at === phases.length - 1;
    if (!isLast && !(at === 0 && canaries.on) && !(Number(size) > 0)) words.phases = `Say how many begin in phase ${at + 1}.`;
    if (at > 0 && !iso(start)) words.phases = `Say when phase ${at + 1} begins.`;
  });
  if (plan.stop.some((rule) => String(rule.most).trim() === "")) words.stop = "Say how many failures are too many, or take the rule away.";
  return words;
}

/** Members of the body of the API, and the part of the form that they are filled in in. */
const PARTS = {
  phases: "phases", stop: "stop", windows: "windows", budget: "budget", canaries: "canaries", retries: "retries",
  update_control_map: "pauses", artifact_name: "release", name: "name", devices: "target", filter_id: "target", max_devices: "target",
};

/** Of an answer that refuses a plan: `{field, words, deployment}`. Without a field it is about the whole. */
export function refusal(error) {
  const { field, deployment_id: deployment } = error.body ?? {};
  if (deployment) return { field: "name", words: "A roll-out with this name and release runs for the same devices.", deployment };
  const words = field && error.message.startsWith(`${field}: `) ? error.message.slice(field.length + 2) : error.message;
  return { field: PARTS[field], words: sentence(words) };
}

const has = (many, one, more) => (many === 1 ? one : more);

/** Why devices would get nothing. */
const WITHOUT = {
  "already-installed": (many) => `${has(many, "has", "have")} it already`,
  "not-reported": (many) => `${has(many, "has", "have")} not said yet what ${has(many, "it is", "they are")}; that shows when ${has(many, "it asks", "they ask")}`,
  "wrong-type": (many) => `${has(many, "has", "have")} the wrong type: no artifact of the release is for ${has(many, "it", "them")}`,
  "no-artifact-fits": (many) => `${has(many, "has", "have")} the right type, but lack what the artifacts need to be installed on`,
  "not-accepted": (many) => `${has(many, "is", "are")} not accepted: with ${has(many, "it", "them")} the roll-out is refused`,
  unknown: (many) => `${has(many, "is", "are")} not known to this server: with ${has(many, "it", "them")} the roll-out is refused`,
};
const REFUSED = ["not-accepted", "unknown"];

/** A dry run of a plan in sentences: `[{kind, words, devices, deployment}]`; `devices` are examples. */
export function said(dry, plan) {
  const lines = [];
  const rules = plan.stop.map(ruleOf);
  const tell = (kind, words, more) => lines.push({ kind, words, ...more });
  if (dry.equal_deployment) {
    tell("bad", "A roll-out with this name and release runs for the same devices: this one would be refused.", { deployment: dry.equal_deployment });
  }
  tell(dry.device_count ? "plain" : "wait", `${counted(dry.device_count, "device")} ${has(dry.device_count, "is", "are")} in it.`);
  for (const part of dry.artifacts) {
    const what = part.kind === "delta" ? "a delta" : "the full image";
    const types = part.device_types_compatible.join(", ");
    tell("good", `${counted(part.devices, "device")} will get ${what} of ${bytes(part.size)} (${types}).`, { devices: part.examples });
  }
  for (const part of dry.without) {
    const words = WITHOUT[part.code]?.(part.devices) ?? `would get nothing (${part.code})`;
    tell(REFUSED.includes(part.code) ? "bad" : "wait", `${counted(part.devices, "device")} ${words}.`, { devices: part.examples });
  }
  if (dry.devices > 0) {
    const saved = dry.saved_bytes ? ` Deltas save ${bytes(dry.saved_bytes)}.` : "";
    tell("plain", `${bytes(dry.bytes)} will be loaded in all.${saved}`);
  }
  for (const other of dry.other_deployments.slice(0, 5)) {
    tell("wait", `${counted(other.devices, "device")} of it ${has(other.devices, "is", "are")} also in “${other.name}”, which comes first.`, { deployment: other.id });
  }
  if (dry.other_deployments.length > 5) tell("wait", `Some are in ${counted(dry.other_deployments.length - 5, "other roll-out")} too.`);
  for (const { after_devices: after, action } of rules) {
    if (!after || plan.target.kind === "filter" || dry.devices === 0 || after < dry.device_count) continue;
    const end = action === "abort" ? "abort" : "hold";
    tell("wait", `The stop rule waits until ${counted(after, "device")} ${has(after, "has", "have")} ended: of ${number(dry.device_count)}, nothing is left then that it could ${end}.`);
  }
  if (dry.canaries?.length) tell("plain", `${counted(dry.canaries.length, "device")} begin${has(dry.canaries.length, "s", "")} first.`, { devices: dry.canaries.slice(0, 10) });
  return lines;
}

/** A stop rule in words. */
export function ruleWords(rule) {
  const end = rule.action === "abort" ? "it is aborted" : "it is held";
  if (rule.failed_percent !== undefined && rule.failed_percent !== null) {
    const after = rule.after_devices ? `, once ${counted(rule.after_devices, "device")} ended` : "";
    return `When more than ${rule.failed_percent} % have failed${after}, ${end}.`;
  }
  const within = rule.within_seconds ? ` within ${duration(rule.within_seconds)}` : "";
  return `When more than ${counted(rule.failed_devices, "device")} ${has(rule.failed_devices, "has", "have")} failed${within}, ${end}.`;
}

export function windowWords({ days, from, to }) {
  const on = days?.length ? days.map((day) => day.charAt(0).toUpperCase() + day.slice(1)).join(", ") : "Every day";
  return `${on} from ${from} to ${to}`;
}

const LENGTHS = [
  [86400, "day"],
  [3600, "hour"],
  [60, "minute"],
  [1, "second"],
];
/** `2 hours`; of an odd number of seconds, about. */
export function duration(seconds) {
  const [size, name] = LENGTHS.find(([size]) => seconds >= size * (size === 1 ? 0 : 1)) ?? LENGTHS.at(-1);
  return counted(Math.max(1, Math.round(seconds / size)), name);
}
