// What is found as a table for other programs: CSV (RFC 4180), asked for page by page.

import { html, useEffect, useRef, useState } from "../html.js";
import { Dialog, Form, Problem } from "../ui.js";
import { counted, number } from "../words.js";
import { attributeOf, keyOf, textOf } from "./attributes.js";
import { find } from "./device_search.js";

/** Devices of one file: 200 pages of the server. */
export const MOST_EXPORTED = 100000;
const PER_QUESTION = 500;

/**
 * One field. A spreadsheet takes what begins with `= + - @` for a formula: devices name their values themselves, so such a
 * value gets a `'` before it.
 */
export function field(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}
const line = (fields) => `${fields.map(field).join(",")}\r\n`;

/** All devices of a search as a Blob; `progress(count)` hears how many there are so far. */
async function csv(search, keys, progress, signal) {
  const parts = [line(["id", ...keys])];
  let count = 0;
  for (let page = 1; count < MOST_EXPORTED; page += 1) {
    const { data } = await find({ ...search, attributes: keys.map(attributeOf), per_page: PER_QUESTION, page }, signal);
    const text = data.map((device) => {
      const values = new Map(device.attributes.map((one) => [keyOf(one), textOf(one.value)]));
      return line([device.id, ...keys.map((key) => values.get(key) ?? "")]);
    });
    // A Blob of its own: the browser may put it on the disk, and this page keeps none of the text.
    parts.push(new Blob(text));
    count += data.length;
    progress(count);
    if (data.length < PER_QUESTION) break;
  }
  return { blob: new Blob(parts, { type: "text/csv;charset=utf-8" }), count };
}

/** Gives the browser a file to keep. */
export function keep(blob, name) {
  const address = URL.createObjectURL(blob);
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

export function Export({ search, keys, total, close }) {
  const [state, setState] = useState({});
  const ended = useRef(new AbortController());
  useEffect(() => () => ended.current.abort(), []);
  const begin = async () => {
    setState({ running: true, count: 0 });
    try {
      const { blob, count } = await csv(await search(ended.current.signal), keys, (soFar) => setState({ running: true, count: soFar }), ended.current.signal);
      keep(blob, `devices-${new Date().toISOString().slice(0, 10)}.csv`);
      setState({ ended: true, count });
    } catch (error) {
      if (error.name !== "AbortError") setState({ error });
    }
  };
  const most = Math.min(total, MOST_EXPORTED);
  return html`
    <${Dialog} title="Export as CSV" close=${close}>
      ${!state.running &&
      !state.ended &&
      html`<${Form} name="Export" cancel=${close} send=${begin}>
        <p>${counted(most, "device")} with the columns that are shown.${total > MOST_EXPORTED ? ` These are the first ${number(MOST_EXPORTED)} of ${number(total)}: search for fewer, or ask the API for the rest.` : ""}</p>
        <p class="quiet">A device that changes while the pages are asked for may be there twice, or not at all. A value that a spreadsheet would take for a formula gets a ' before it.</p>
        ${state.error && html`<${Problem} error=${state.error} />`}
      <//>`}
      ${state.running &&
      html`<p role="status">${number(state.count)} of ${counted(most, "device")}</p>
        <progress max=${most || 1} value=${state.count} aria-label="How many are read"></progress>
        <div class="actions"><button type="button" onClick=${close}>Stop</button></div>`}
      ${state.ended &&
      html`<p role="status">${counted(state.count, "device")} are in the file.</p>
        <div class="actions"><button type="button" class="main" onClick=${close}>Close</button></div>`}
    <//>
  `;
}
