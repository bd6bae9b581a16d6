// How far a roll-out is, from its statistics: the same words and colours wherever it is shown.

const GOOD = ["success", "already-installed"];
const BAD = ["failure", "aborted", "noartifact", "decommissioned"];
const BUSY = ["downloading", "installing", "rebooting"];

/** Parts of a bar for a deployment of a list or of its own. */
export function progressParts(deployment) {
  const counts = deployment.statistics?.status ?? {};
  const sum = (names) => names.reduce((all, name) => all + (counts[name] ?? 0), 0);
  const good = sum(GOOD);
  const bad = sum(BAD);
  const busy = sum(BUSY);
  const all = Math.max(deployment.device_count ?? 0, deployment.max_devices ?? 0, deployment.initial_device_count ?? 0);
  const said = Object.values(counts).reduce((sum, one) => sum + one, 0);
  return [
    { name: "succeeded", count: good, kind: "good" },
    { name: "failed or ended", count: bad, kind: "bad" },
    { name: "working", count: busy, kind: "busy" },
    { name: "waiting", count: Math.max(0, Math.max(all, said) - good - bad - busy), kind: "plain" },
  ];
}
