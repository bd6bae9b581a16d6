// What a roll-out is and how far, from its statistics: the same words and colours wherever it is shown.

import { html } from "../html.js";
import { Status } from "../ui.js";

export const GOOD = ["success", "already-installed"];
const BAD = ["failure", "aborted", "noartifact", "decommissioned"];
/** Statuses of a device that has ended it. */
export const ENDED = [...GOOD, ...BAD];
const BUSY = ["downloading", "installing", "rebooting"];

/** How many devices have one of these statuses. */
export const sum = (counts, names) => names.reduce((all, name) => all + (counts[name] ?? 0), 0);

/** How many devices wait to go on. */
export const paused = (counts) => sum(counts, Object.keys(counts).filter((name) => name.startsWith("pause")));

/** Parts of a bar for a deployment of a list or of its own. */
export function progressParts(deployment) {
  const counts = deployment.statistics?.status ?? {};
  const [good, bad, busy] = [GOOD, BAD, BUSY].map((names) => sum(counts, names));
  const all = Math.max(deployment.device_count ?? 0, deployment.max_devices ?? 0, deployment.initial_device_count ?? 0);
  const said = sum(counts, Object.keys(counts));
  return [
    { name: "succeeded", count: good, kind: "good" },
    { name: "failed or ended", count: bad, kind: "bad" },
    { name: "working", count: busy, kind: "busy" },
    { name: "waiting", count: Math.max(0, Math.max(all, said) - good - bad - busy), kind: "plain" },
  ];
}

const STATES = { pending: "not begun", inprogress: "running", scheduled: "scheduled", finished: "finished" };

/** How a roll-out is: also held, or ended by a rule before its devices had. */
export function StateOf({ rollout }) {
  if (rollout.status === "finished") {
    // By a rule, or by a person while it was held: why, `held` says.
    if (rollout.held) return html`<${Status} value="aborted">stopped<//>`;
    if (rollout.statistics.status.aborted > 0) return html`<${Status} value="aborted">ended early<//>`;
    if (rollout.statistics.status.failure > 0) return html`<${Status} value="pending">finished, some failed<//>`;
  }
  if (rollout.held) return html`<${Status} value="held">held<//>`;
  return html`<${Status} value=${rollout.status === "pending" ? "" : rollout.status}>${STATES[rollout.status] ?? rollout.status}<//>`;
}

/** What it brings. */
export const ReleaseOf = ({ rollout }) =>
  rollout.type === "configuration" ? html`<span class="quiet">configuration</span>` : rollout.artifact_name;
