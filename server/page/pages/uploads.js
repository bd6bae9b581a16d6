// Artifacts on their way to the server, one after the other. They go on when somebody looks at another page meanwhile.

import { html, useEffect, useRef, useState } from "../html.js";
import { get, segment, send } from "../api.js";
import { Card, Field, Form, say } from "../ui.js";
import { bytes, percent, sentence } from "../words.js";
import { to } from "../route.js";

const ARTIFACTS = "v1/deployments/artifacts";

/** What waits, goes and went: `{id, file, path, fields, part, state, sent, all, words, artifact}`. */
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

/** Puts a file at the end of what waits: to `path`, as the `part` of a form behind its other `fields`. */
function add(file, path, fields, part) {
  queue = [...queue, { id: (ids += 1), file, path, fields, part, state: "waits", ended: new AbortController() }];
  tell();
  work();
}

const upload = (file, description) => add(file, ARTIFACTS, { size: String(file.size), description }, "artifact");

/** Has the server make an artifact of a file that goes to `folder` on the device. */
const make = (file, { name, types, folder }) =>
  add(file, `${ARTIFACTS}/generate`, { name, device_types_compatible: types, type: "single_file", args: JSON.stringify({ filename: file.name, dest_dir: folder }) }, "file");

const unsaved = (event) => event.preventDefault();

async function work() {
  if (working) return;
  working = true;
  addEventListener("beforeunload", unsaved);
  for (let next; (next = queue.find((one) => one.state === "waits")); ) await sendOne(next);
  removeEventListener("beforeunload", unsaved);
  working = false;
}

async function sendOne({ id, file, path, fields, part, ended }) {
  change(id, { state: "goes", sent: 0, all: file.size });
  const form = new FormData();
  for (const [name, text] of Object.entries(fields)) if (text) form.append(name, text);
  // The server reads it while it comes, so everything else has to be there before.
  form.append(part, file);
  try {
    const { location } = await send("POST", path, form, (sent, all) => change(id, { sent, all }), ended.signal);
    const artifact = await get(`${ARTIFACTS}/${segment(location.split("/").at(-1))}`).catch(() => null);
    change(id, { state: "there", artifact: artifact?.data });
  } catch (error) {
    if (error.name === "AbortError") change(id, { state: "ended" });
    else if (error.isLost) change(id, { state: "lost", words: "The connection ended before the server said that it has it." });
    else if (error.status === 401) change(id, { state: "lost", words: "Your login ended before it was sent." });
    else change(id, { state: "refused", words: verdict(error) });
  }
}

/** Why an artifact is not kept. */
const verdict = (error) =>
  error.status === 409 ? "There is one already that a device could not tell from it: the same name, one of the same device types, and the same needs." : sentence(error.message);

/** Sends what was lost again. When it had arrived after all, the server says that it is there, and nothing is there twice. */
function again(id) {
  change(id, { state: "waits", ended: new AbortController() });
  work();
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
  const take = (files) => {
    for (const file of files) {
      if (file.size > 0) upload(file, description.trim());
      else say(`${file.name} is not sent: there is nothing in it, or it is a folder.`, "bad");
    }
  };
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
      <details class="make">
        <summary>Make one of a plain file</summary>
        <${Make} />
      </details>
      ${list.length > 0 && html`<ul class="uploads" aria-label="Uploads">${list.map((one) => html`<${Upload} key=${one.id} one=${one} />`)}</ul>`}
    <//>
  `;
}

/** For who has a file and no host tool. What the server makes has no signature: devices with a key refuse it. */
function Make() {
  const file = useRef();
  const [made, setMade] = useState({ name: "", types: "", folder: "/etc" });
  const field = (name, label, props) => html`<${Field} label=${label} value=${made[name]} onInput=${(event) => setMade({ ...made, [name]: event.target.value })} ...${props} />`;
  const put = async () => {
    make(file.current.files[0], made);
    file.current.value = "";
  };
  return html`
    <p class="quiet">The device puts the file into a folder (update module “single-file”). It is not signed: devices that ask for a signature refuse it; the host tool makes signed ones.</p>
    <${Form} name="Make it" send=${put}>
      <${Field} label="File">${(id) => html`<input id=${id} ref=${file} type="file" required />`}<//>
      ${field("name", "Name of the release", { required: true, maxlength: "256" })}
      ${field("types", "Device types", { required: true, hint: "with commas between" })}
      ${field("folder", "Folder on the device", { required: true, pattern: "/.*", title: "a path that begins with /" })}
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
      ${state === "lost" && html`<span class="refused"><span class="status bad">lost</span> ${words}</span>
        <button type="button" onClick=${() => again(one.id)}>Send it again<span class="unseen">: ${file.name}</span></button>`}
      ${state === "ended" && html`<span class="status plain">ended before it was sent</span>`}
      ${state === "refused" && html`<span class="refused"><span class="status bad">refused</span> ${words}</span>`}
      ${!isOver(one) && html`<button type="button" onClick=${end}>Stop<span class="unseen"> the upload of ${file.name}</span></button>`}
    </li>
  `;
}
