// Artifacts on their way to the server, one after the other. They go on when somebody looks at another page meanwhile.

import { html, useEffect, useRef, useState } from "../html.js";
import { get, segment, send } from "../api.js";
import { Card, Field } from "../ui.js";
import { bytes, percent } from "../words.js";
import { to } from "../route.js";
import { sentence } from "./plan.js";

/** What waits, goes and went: `{id, file, description, state, sent, all, words, release}`. */
let queue = [];
let ids = 0;
let working = false;
const listeners = new Set();

function change(id, members) {
  queue = queue.map((one) => (one.id === id ? { ...one, ...members } : one));
  tell();
}
const tell = () => listeners.forEach((listener) => listener(queue));

function useUploads() {
  const [list, setList] = useState(queue);
  useEffect(() => {
    listeners.add(setList);
    setList(queue);
    return () => listeners.delete(setList);
  }, []);
  return list;
}

/** Puts files at the end of what waits. */
export function upload(files, description) {
  for (const file of files) queue = [...queue, { id: (ids += 1), file, description, state: "waits", ended: new AbortController() }];
  tell();
  work();
}

const unsaved = (event) => event.preventDefault();

async function work() {
  if (working) return;
  working = true;
  addEventListener("beforeunload", unsaved);
  for (let next; (next = queue.find((one) => one.state === "waits")); ) await sendOne(next);
  removeEventListener("beforeunload", unsaved);
  working = false;
}

async function sendOne({ id, file, description, ended }) {
  change(id, { state: "goes", sent: 0, all: file.size });
  const form = new FormData();
  form.append("size", String(file.size));
  if (description) form.append("description", description);
  // The server reads it while it comes, so everything else has to be there before.
  form.append("artifact", file);
  try {
    const { location } = await send("POST", "v1/deployments/artifacts", form, (sent, all) => change(id, { sent, all }), ended.signal);
    const artifact = await get(`v1/deployments/artifacts/${segment(location.split("/").at(-1))}`).catch(() => null);
    change(id, { state: "there", artifact: artifact?.data });
  } catch (error) {
    if (error.name === "AbortError") change(id, { state: "ended" });
    else change(id, { state: "refused", words: verdict(error) });
  }
}

/** Why an artifact is not kept. */
function verdict(error) {
  const same = /^artifact (\S+) has the same name/.exec(error.message);
  if (same) return `There is one already that a device could not tell from it: the same name, one of the same device types, and the same needs (${same[1]}).`;
  return sentence(error.message);
}

const isOver = (one) => !["waits", "goes"].includes(one.state);

/** Where files are dropped or chosen, and what becomes of them. `there()` is called when one has arrived. */
export function Uploads({ there }) {
  const list = useUploads();
  const [over, setOver] = useState(false);
  const [description, setDescription] = useState("");
  const arrived = list.filter((one) => one.state === "there").length;
  const before = useRef(arrived);
  useEffect(() => {
    if (arrived > before.current) there();
    before.current = arrived;
  }, [arrived]);
  const take = (files) => upload([...files].filter((file) => file.size > 0), description.trim());
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    take(event.dataTransfer.files);
  };
  return html`
    <${Card} title="Upload artifacts" actions=${list.some(isOver) && html`<button type="button" onClick=${() => { queue = queue.filter((one) => !isOver(one)); tell(); }}>Clear the list</button>`}>
      <div class=${over ? "drop over" : "drop"} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
        <${Field} label="Artifacts (.mender)" hint="Drop them here, or choose them. They are sent one after the other, and kept if they are whole.">
          ${(id, said) => html`<input id=${id} aria-describedby=${said} type="file" multiple accept=".mender" onChange=${(event) => { take(event.target.files); event.target.value = ""; }} />`}
        <//>
        <${Field} label="Description for them" maxlength="1000" value=${description} onInput=${(event) => setDescription(event.target.value)} hint="If there is something to say." />
      </div>
      ${list.length > 0 && html`<ul class="uploads" aria-label="Uploads">${list.map((one) => html`<${Upload} key=${one.id} one=${one} />`)}</ul>`}
    <//>
  `;
}

function Upload({ one }) {
  const { file, state, sent, all, words, artifact } = one;
  const end = () => (state === "waits" ? change(one.id, { state: "ended" }) : one.ended.abort());
  return html`
    <li>
      <span><strong>${file.name}</strong> <span class="quiet">${bytes(file.size)}</span></span>
      ${state === "waits" && html`<span>waits for its turn</span>`}
      ${state === "goes" && html`<progress aria-label=${`Upload of ${file.name}`} max=${all || 1} value=${sent}></progress>
        <span>${sent < all ? `${percent(sent, all)} sent` : "sent; the server checks and keeps it"}</span>`}
      ${state === "there" && html`<span class="status good">there${artifact && html`: <a href=${to(["releases", artifact.name])}>${artifact.name}</a>, for ${artifact.device_types_compatible.join(", ")}`}</span>`}
      ${state === "ended" && html`<span class="status plain">ended before it was sent</span>`}
      ${state === "refused" && html`<span class="refused"><span class="status bad">refused</span> ${words}</span>`}
      ${!isOver(one) && html`<button type="button" onClick=${end}>Stop<span class="unseen"> the upload of ${file.name}</span></button>`}
    </li>
  `;
}
