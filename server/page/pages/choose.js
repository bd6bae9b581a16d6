// A text with suggestions under it: a release by a part of its name, or a group.

import { html, useState } from "../html.js";
import { get } from "../api.js";
import { Field, useLoad } from "../ui.js";
import { ago } from "../words.js";
import { useLater } from "./later.js";

const MOST = 8;

/** Chooses a release by its name. `onRelease(name)` is called with whatever is typed or chosen. */
export function ReleaseField({ label = "Release", value, onRelease, error, hint, required }) {
  const [open, setOpen] = useState(false);
  const [marked, setMarked] = useState();
  const wanted = useLater(value, 200);
  const found = useLoad(
    (signal) => (open ? get("v2/deployments/deployments/releases", { name: wanted, per_page: MOST, sort: "modified:desc" }, { signal }) : { data: [] }),
    [wanted, open],
  );
  // What was found for less than what is typed by now is left out until the server has answered for it.
  const list = open ? (found.data?.data ?? []).filter((release) => release.name.toLowerCase().includes(value.toLowerCase())) : [];
  const at = list.findIndex((release) => release.name === marked);
  const choose = (name) => {
    onRelease(name);
    setOpen(false);
    setMarked();
  };
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setOpen(true);
      const from = at < 0 && step < 0 ? 0 : at;
      if (list.length) setMarked(list[(from + step + list.length) % list.length].name);
    } else if (event.key === "Enter" && open && list[at]) {
      event.preventDefault();
      choose(list[at].name);
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      setOpen(false);
    }
  };
  return html`
    <${Field} label=${label} error=${error} hint=${hint}>
      ${(id, said) => html`
        <div class="choose">
          <input id=${id} role="combobox" autocomplete="off" required=${required} value=${value}
            aria-expanded=${list.length > 0 ? "true" : "false"} aria-controls=${`${id}-list`} aria-autocomplete="list"
            aria-activedescendant=${list[at] ? `${id}-${at}` : undefined} aria-describedby=${said} aria-invalid=${error ? "true" : undefined}
            onFocus=${() => setOpen(true)} onBlur=${() => setOpen(false)} onKeyDown=${onKeyDown}
            onInput=${(event) => { setOpen(true); setMarked(); onRelease(event.target.value); }} />
          <ul id=${`${id}-list`} role="listbox" aria-label=${`${label}: suggestions`} hidden=${list.length === 0}>
            ${list.map(
              (release, index) => html`
                <li key=${release.name} id=${`${id}-${index}`} role="option" aria-selected=${index === at ? "true" : "false"}
                  onMouseDown=${(event) => { event.preventDefault(); choose(release.name); }}>
                  ${release.name}
                  <small class="quiet">${typesOf(release).join(", ")}, ${ago(release.modified)}</small>
                </li>
              `,
            )}
          </ul>
        </div>
      `}
    <//>
  `;
}

/** Names a group: one that is there, or a new one. */
export const GroupField = ({ value, groups, onGroup }) => html`
  <${Field} label="Group" hint="letters, digits, _ and -; a new name is a new group">${(id, said) => html`
    <input id=${id} aria-describedby=${said} required pattern="[A-Za-z0-9_\\-]+" maxlength="256" list="groups-known" value=${value} onInput=${(event) => onGroup(event.target.value)} />
    <datalist id="groups-known">${(groups ?? []).map((name) => html`<option value=${name} />`)}</datalist>`}<//>
`;

/** Device types of all artifacts of a release. */
export const typesOf = (release) => [...new Set(release.artifacts.flatMap((artifact) => artifact.device_types_compatible))].sort();
