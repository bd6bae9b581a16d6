// What people have done, the newest first, and recorded terminals.

import { html, useEffect, useRef, useState } from "../html.js";
import { get, link, segment, socket } from "../api.js";
import { decode } from "../msgpack.js";
import { Choice, Dialog, Field, Loaded, Note, Page, Pager, Table, Time, usePages } from "../ui.js";
import { pageIn, to, useQuery } from "../route.js";
import { CONNECT, SEE_AUDIT, may } from "../permit.js";
import { short } from "../words.js";

const PER_PAGE = 50;
/** Types of the log, and what the page calls them. */
const KINDS = {
  device: "device", deployment: "roll-out", artifact: "artifact", release: "release", group: "group", filter: "dynamic group",
  user: "person", role: "role", token: "token", settings: "settings", integration: "webhook", tenant: "server",
};

/** The question behind what is filtered: for the list and for the file. */
function question(query) {
  const seconds = (day, plus) => (day ? Math.floor(Date.parse(`${day}T00:00:00`) / 1000) + plus : undefined);
  return {
    actor_email: query.who,
    object_type: query.what,
    object_id: query.id,
    created_after: seconds(query.from, 0),
    created_before: seconds(query.until, 86400),
    sort: query.sort,
  };
}

export function Audit({ route }) {
  if (!may(SEE_AUDIT)) return html`<${Page} title="Audit log"><${Note} kind="wait">Your roles do not let you see what people have done.<//><//>`;
  return html`<${Entries} route=${route} />`;
}

function Entries({ route }) {
  const [query, change] = useQuery(route);
  const [recording, setRecording] = useState();
  const page = pageIn(query);
  const turn = (next) => change({ page: next });
  const wanted = question(query);
  const list = usePages((range, signal) => get("v1/auditlogs/logs", { ...wanted, ...range }, { signal }), [JSON.stringify(wanted)], { page, perPage: PER_PAGE, turn });
  const filter = (members) => change({ page: undefined, ...members });
  return html`
    <${Page} title="Audit log" actions=${html`<a class="button" href=${link("v1/auditlogs/logs/export", wanted)} download="audit-log.csv">Keep as CSV</a>`}>
      <div class="filters">
        <${Field} label="E-mail of who did it" value=${query.who ?? ""} onChange=${(event) => filter({ who: event.target.value.trim() })} />
        <${Choice} label="What it was done to" value=${query.what} options=${[["", "everything"], ...Object.entries(KINDS)]} onChoice=${(what) => filter({ what })} />
        <${Field} label="From" type="date" value=${query.from ?? ""} onChange=${(event) => filter({ from: event.target.value })} />
        <${Field} label="To" type="date" value=${query.until ?? ""} onChange=${(event) => filter({ until: event.target.value })} />
        ${query.id && html`<button type="button" onClick=${() => filter({ id: undefined })}>Not only ${short(query.id)}</button>`}
      </div>
      <${Loaded} of=${list}>
        ${(answer) => html`
          <${Table} caption="What people have done" rows=${answer.data} keyOf=${(row) => `${row.time} ${row.actor.id} ${row.action} ${row.object.id}`}
            empty="Nothing fits." order=${query.sort === "asc" ? "time:asc" : "time:desc"}
            onOrder=${(order) => filter({ sort: order.split(":")[1] })}
            columns=${[
              { name: "time", title: "When", sort: true, show: (row) => html`<${Time} at=${row.time} />` },
              { title: "Who", show: (row) => row.actor.email || row.actor.id },
              { title: "Did", show: (row) => row.action.replaceAll("_", " ") },
              { title: "To", show: (row) => html`<${Thing} object=${row.object} />` },
              { title: "More", show: (row) => html`<${More} row=${row} play=${setRecording} />` },
            ]} />
          <${Pager} page=${page} perPage=${PER_PAGE} total=${answer.total} what=${answer.total === 1 ? "entry" : "entries"} onPage=${turn} />
        `}
      <//>
      ${recording && html`<${Playback} session=${recording} close=${() => setRecording()} />`}
    <//>
  `;
}

function Thing({ object }) {
  const name = object[object.type]?.name;
  const words = `${KINDS[object.type] ?? object.type} ${name ?? short(object.id)}`;
  if (object.type === "device") return html`<a href=${to(["devices", object.id])}>${words}</a>`;
  if (object.type === "deployment") return html`<a href=${to(["rollouts", object.id])}>${words}</a>`;
  return words;
}

/** The session of a terminal that was opened, or seen again. */
const sessionOf = (row) => row.meta?.session_id?.[0];

function More({ row, play }) {
  const session = sessionOf(row);
  return html`
    ${row.change && html`<details><summary>Details</summary><pre>${row.change}</pre></details>`}
    ${session && may(CONNECT) && html`<button type="button" class="plain" onClick=${() => play(session)}>Watch the terminal</button>`}
  `;
}

const MOST_TEXT = 200_000;
/** What a terminal shows besides its text is left out: colours and movements of the cursor. */
// eslint-disable-next-line no-control-regex
const MOVES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]/g;

/** Shows what a person saw, as text. */
function Playback({ session, close }) {
  const [text, setText] = useState("");
  const [state, setState] = useState("Loading…");
  const end = useRef();
  useEffect(() => {
    let all = "";
    let opened = false;
    const decoder = new TextDecoder();
    const line = new WebSocket(socket(`v1/deviceconnect/sessions/${segment(session)}/playback?sleep_ms=0`));
    line.binaryType = "arraybuffer";
    line.onopen = () => (opened = true);
    line.onmessage = (event) => {
      all = (all + decoder.decode(printed(event.data), { stream: true })).slice(-MOST_TEXT);
      setText(all.replaceAll("\r\n", "\n").replace(MOVES, ""));
    };
    line.onclose = () => setState(opened ? "" : "There is no recording of this terminal, or you may not see it.");
    return () => line.close();
  }, [session]);
  useEffect(() => end.current?.scrollIntoView({ block: "end" }), [text]);
  return html`
    <${Dialog} title="What the terminal showed" close=${close}>
      ${state && html`<${Note}>${state}<//>`}
      <pre tabindex="0">${text}<span ref=${end}></span></pre>
      <div class="actions"><button type="button" onClick=${close}>Close</button></div>
    <//>
  `;
}

/** What a frame printed; nothing, where it is no frame. */
function printed(frame) {
  try {
    const { body } = decode(new Uint8Array(frame));
    return body instanceof Uint8Array ? body : new Uint8Array();
  } catch (error) {
    if (error instanceof RangeError) return new Uint8Array();
    throw error;
  }
}
