// What people call devices, where an API says no more than their ids.

import { html, useEffect, useRef, useState } from "../html.js";
import { post } from "../api.js";
import { to } from "../route.js";
import { attributeOf, nameOf } from "./attributes.js";

const NAME = attributeOf("tags/name");
/** Names that are kept; a page of a list has some dozens. */
const MOST = 2000;

/** Names of these devices by their ids, as far as they are known; those that are not are asked for once, all together. */
export function useNames(ids) {
  const [names, setNames] = useState({});
  const asked = useRef(new Set());
  const unknown = ids.filter((id) => !asked.current.has(id));
  useEffect(() => {
    if (unknown.length === 0) return;
    if (asked.current.size > MOST) asked.current.clear();
    unknown.forEach((id) => asked.current.add(id));
    const body = { device_ids: unknown, attributes: [NAME], page: 1, per_page: unknown.length };
    post("v2/inventory/filters/search", body).then(
      (found) => setNames((before) => ({ ...before, ...Object.fromEntries(found.data.map((device) => [device.id, nameOf(device)])) })),
      // Who may see roll-outs need not see devices: their ids stand there all the same. What had no answer is asked for again.
      (error) => error.status === 403 || unknown.forEach((id) => asked.current.delete(id)),
    );
  });
  return names;
}

/** A device by what people call it, as far as that is known, and its id. */
export function Named({ device }) {
  const name = useNames([device])[device];
  return html`<a class="id" href=${to(["devices", device])}>${device}</a>${name && !device.startsWith(name) && html` <strong>${name}</strong>`}`;
}
