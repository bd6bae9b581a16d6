// Which columns one wants to see. They are kept with one's settings on the server, so that they are there on the next computer
// too; where these cannot be kept, in this browser.

import { html, useEffect, useState } from "../html.js";
import { get, post } from "../api.js";
import { Dialog, Field, Form, presses, say } from "../ui.js";
import { GROUP, HEARD, STATUS, attributeOf, titleOf } from "./attributes.js";

const FIRST_COLUMNS = [STATUS, "inventory/device_type", "inventory/artifact_name", GROUP, HEARD];
/** More would be a table that nobody reads. */
const MOST_COLUMNS = 20;
/** Attributes that are offered at once: a fleet may have hundreds, and there is a field to search them. */
const OFFERED = 40;
const SETTING = "rust_ota_device_columns";
const OWN = "v1/useradm/settings/me";

function checked(columns) {
  if (!Array.isArray(columns)) return null;
  const keys = columns.filter((key) => typeof key === "string" && key.includes("/"));
  return keys.length ? [...new Set(keys)].slice(0, MOST_COLUMNS) : null;
}

function ofBrowser() {
  try {
    return checked(JSON.parse(localStorage.getItem(SETTING)));
  } catch {
    return null;
  }
}

/** The columns, and `change(columns)`, which keeps them. */
export function useColumns() {
  const [columns, setColumns] = useState(() => ofBrowser() ?? FIRST_COLUMNS);
  useEffect(() => {
    let gone = false;
    get(OWN).then(
      ({ data }) => !gone && setColumns((before) => checked(data?.[SETTING]) ?? before),
      () => {},
    );
    return () => {
      gone = true;
    };
  }, []);
  const change = async (wanted) => {
    const next = checked(wanted) ?? FIRST_COLUMNS;
    setColumns(next);
    try {
      localStorage.setItem(SETTING, JSON.stringify(next));
    } catch {
      // A browser that keeps nothing; the server may.
    }
    try {
      await put(next);
    } catch (error) {
      if (error.status === 403 || error.status === 404) return;
      say(`The columns are kept in this browser only: ${error.message}`, "wait");
    }
  };
  return [columns, change];
}

/** The settings are one document, of which others write other parts: whoever was faster is read once more. */
async function put(columns, again = true) {
  const { data, etag } = await get(OWN);
  try {
    await post(OWN, { ...data, [SETTING]: columns }, { etag });
  } catch (error) {
    if (error.status !== 412 || !again) throw error;
    await put(columns, false);
  }
}

export function Columns({ columns, change, known, close }) {
  const [wanted, setWanted] = useState(columns);
  const [text, setText] = useState("");
  const swap = (at, other) => {
    const next = [...wanted];
    [next[at], next[other]] = [next[other], next[at]];
    // A row that is put elsewhere loses the focus.
    const pressed = document.activeElement;
    setTimeout(() => pressed.focus());
    setWanted(next);
  };
  const others = known.filter(({ key }) => !wanted.includes(key) && `${key} ${titleOf(key)}`.toLowerCase().includes(text.trim().toLowerCase()));
  const isFull = wanted.length >= MOST_COLUMNS;
  return html`
    <${Dialog} title="Columns" close=${close}>
      <${Form} cancel=${close} ready=${wanted.length > 0} send=${async () => { await change(wanted); close(); }}>
        <h3>Shown, from left to right</h3>
        <ul class="choices">
          ${wanted.map(
            (key, at) => html`<li key=${key}>
              <span>${titleOf(key)}</span>
              <button ...${presses(() => swap(at, at - 1), at === 0)} aria-label=${`${titleOf(key)}: to the left`}>↑</button>
              <button ...${presses(() => swap(at, at + 1), at === wanted.length - 1)} aria-label=${`${titleOf(key)}: to the right`}>↓</button>
              <button type="button" onClick=${() => setWanted(wanted.filter((other) => other !== key))} aria-label=${`${titleOf(key)}: do not show`}>✕</button>
            </li>`,
          )}
        </ul>
        <h3>What else there is</h3>
        <${Field} label="Name of an attribute" type="search" value=${text} onInput=${(event) => setText(event.target.value)} />
        ${isFull && html`<p class="quiet">There is room for ${MOST_COLUMNS} columns.</p>`}
        <ul class="choices">
          ${others.slice(0, OFFERED).map(
            ({ key, count }) => html`<li key=${key}>
              <span>${titleOf(key)} <small class="quiet">${attributeOf(key).scope}${count ? `, ${count} devices` : ""}</small></span>
              <button ...${presses(() => setWanted([...wanted, key]), isFull)} aria-label=${`${titleOf(key)}: show`}>+</button>
            </li>`,
          )}
        </ul>
        ${others.length > OFFERED && html`<p class="quiet">and ${others.length - OFFERED} more: write a part of the name</p>`}
      <//>
      <p><button type="button" class="plain" onClick=${() => setWanted(FIRST_COLUMNS)}>As it was at first</button></p>
    <//>
  `;
}
