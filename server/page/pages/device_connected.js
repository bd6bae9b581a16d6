// What is there for a connected device only.

import { html } from "../html.js";
import { Loaded, Note, Time } from "../ui.js";

/** Its children, or what is missing for them. */
export function Connected({ connection, children }) {
  return html`<${Loaded} of=${connection}>${({ data }) =>
    data.status === "connected"
      ? children
      : html`<${Note} kind="wait">
          <span>This device is not connected${data.status === "disconnected" ? html` (it was until <${Time} at=${data.updated_ts} />)` : ""}.
            It is connected while <code>mender-connect</code> runs on it and it is accepted; this page notices by itself.</span>
        <//>`}<//>`;
}
