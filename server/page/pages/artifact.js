// What is in an artifact, and what two of them have that differs.

import { html } from "../html.js";
import { Status, Table, Time } from "../ui.js";
import { bytes, counted, percent, short } from "../words.js";

const DELTA = /delta/;
const IMAGE_SUM = "rootfs-image.checksum";

export const typeOf = (artifact) => artifact.updates[0]?.type_info?.type ?? null;
export const filesOf = (artifact) => artifact.updates.flatMap((update) => update.files ?? []);
/** What has to be installed for it, besides the type of the device. */
export const needsOf = (artifact) => Object.entries(artifact.artifact_depends ?? {}).filter(([name]) => name !== "device_type");
export const isDelta = (artifact) => DELTA.test(typeOf(artifact) ?? "") || needsOf(artifact).some(([name]) => name === IMAGE_SUM);

/** The smallest artifact beside a delta that the same devices can take without anything being there before. */
export function fullOf(artifact, others) {
  const same = (other) => other.device_types_compatible.some((type) => artifact.device_types_compatible.includes(type));
  const full = others.filter((other) => other.id !== artifact.id && needsOf(other).length === 0 && same(other));
  return full.sort((a, b) => a.size - b.size)[0];
}

/** From which release a delta leads, as far as its job or the artifact itself says. */
export function sourceOf(artifact, jobs) {
  const job = jobs.find((one) => one.rust_ota?.artifact_id === artifact.id);
  if (job) return job.from_version;
  const depends = artifact.artifact_depends ?? {};
  const named = depends.artifact_name ?? depends["rootfs-image.version"];
  if (named) return [named].flat().join(" or ");
  const sum = [depends[IMAGE_SUM] ?? []].flat()[0];
  return sum ? `the image with the checksum ${short(sum)}…` : null;
}

/** Full image, delta or what it is otherwise; a delta with what it is made of and how much smaller it is. */
export function Kind({ artifact, others, jobs }) {
  if (typeOf(artifact) === null) return html`no payload`;
  if (!isDelta(artifact)) return html`${needsOf(artifact).length ? "needs something before" : "full"}`;
  const source = sourceOf(artifact, jobs);
  const full = fullOf(artifact, others);
  return html`delta${source && ` from ${source}`}${full && full.size > artifact.size && html`, <strong>${percent(full.size - artifact.size, full.size)} smaller</strong> than the full image (${bytes(full.size)})`}`;
}

const text = (value) => (typeof value === "string" ? value : [value].flat().map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join(", "));

const Pairs = ({ pairs, none }) =>
  pairs.length ? html`<ul class="pairs">${pairs.map(([name, value]) => html`<li key=${name}><code>${name}</code> = <code>${text(value)}</code></li>`)}</ul>` : html`<span class="quiet">${none}</span>`;

/** Everything that an artifact says. */
export const Inside = ({ artifact, others, jobs }) => html`
  <dl class="facts">
    <dt>Kind</dt><dd><${Kind} artifact=${artifact} others=${others} jobs=${jobs} /></dd>
    <dt>For devices of type</dt><dd>${artifact.device_types_compatible.join(", ")}</dd>
    <dt>Payload type</dt><dd>${typeOf(artifact) ?? html`<span class="quiet">none: it only says what is installed</span>`}</dd>
    <dt>Size</dt><dd>${bytes(artifact.size)}</dd>
    <dt>Signed</dt><dd><${Signed} artifact=${artifact} /></dd>
    <dt>SHA-256</dt><dd><code>${artifact.sha256}</code></dd>
    <dt>Id</dt><dd><code>${artifact.id}</code></dd>
    <dt>Here since</dt><dd><${Time} at=${artifact.modified} /></dd>
    <dt>Needs on the device</dt><dd><${Pairs} pairs=${needsOf(artifact)} none="nothing" /></dd>
    <dt>Says is there then</dt><dd><${Pairs} pairs=${Object.entries(artifact.artifact_provides ?? {})} none="nothing" /></dd>
    <dt>Clears what was said</dt><dd>${artifact.clears_artifact_provides?.length ? artifact.clears_artifact_provides.map((one) => html`<code>${one}</code> `) : html`<span class="quiet">nothing</span>`}</dd>
  </dl>
  <h3>Files</h3>
  <${Table} caption="Files of the artifact" rows=${filesOf(artifact).slice(0, MOST_FILES)} keyOf=${(file) => file.name} empty="It has no files."
    columns=${[
      { title: "Name", show: (file) => file.name },
      { title: "Size", number: true, show: (file) => bytes(file.size) },
      { title: "Checksum", show: (file) => html`<code>${file.checksum}</code>` },
    ]} />
  ${filesOf(artifact).length > MOST_FILES && html`<p class="quiet">The first ${MOST_FILES} of ${counted(filesOf(artifact).length, "file")}.</p>`}
  ${artifact.updates.some((update) => update.meta_data) && html`
    <h3>Meta-data</h3>
    ${artifact.updates.filter((update) => update.meta_data).map((update) => html`<pre tabindex="0">${JSON.stringify(update.meta_data, null, 2)}</pre>`)}
  `}
`;
const MOST_FILES = 200;

export const Signed = ({ artifact }) =>
  artifact.signed ? html`<${Status} value="OK">signed<//>` : html`<${Status} value="pending">not signed<//>`;

/** What two artifacts say, line by line: `[{name, left, right}]`, in an order that is the same for all. */
export function compared(left, right) {
  const facts = (artifact) => [
    ["Release", artifact.name],
    ["Device types", artifact.device_types_compatible.join(", ")],
    ["Payload type", typeOf(artifact) ?? "none"],
    ["Size", bytes(artifact.size)],
    ["Signed", artifact.signed ? "yes" : "no"],
    ["SHA-256", artifact.sha256],
    ["Description", artifact.description],
    ["Clears", (artifact.clears_artifact_provides ?? []).join(", ")],
    ...needsOf(artifact).map(([name, value]) => [`Needs ${name}`, text(value)]),
    ...Object.entries(artifact.artifact_provides ?? {}).map(([name, value]) => [`Says ${name}`, text(value)]),
    ...filesOf(artifact).slice(0, MOST_FILES).map((file) => [`File ${file.name}`, `${bytes(file.size)}, ${file.checksum}`]),
    ["Meta-data", artifact.updates.map((update) => (update.meta_data ? JSON.stringify(update.meta_data) : "")).join("")],
  ];
  const [one, other] = [new Map(facts(left)), new Map(facts(right))];
  return [...new Set([...one.keys(), ...other.keys()])].map((name) => ({ name, left: one.get(name) ?? "", right: other.get(name) ?? "" }));
}

export const Compared = ({ left, right }) => html`
  <${Table} caption=${`${left.name} beside ${right.name}`} rows=${compared(left, right).filter((row) => row.left || row.right)} keyOf=${(row) => row.name}
    columns=${[
      { title: "What", show: (row) => row.name },
      { title: `${left.name} (${left.device_types_compatible.join(", ")})`, show: (row) => row.left || html`<span class="quiet">–</span>` },
      { title: `${right.name} (${right.device_types_compatible.join(", ")})`, show: (row) => row.right || html`<span class="quiet">–</span>` },
      { title: "Same", show: (row) => (row.left === row.right ? "same" : html`<${Status} value="pending">differs<//>`) },
    ]} />
`;
