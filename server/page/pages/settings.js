// What is set for everybody, and for oneself.

import { html } from "../html.js";
import { Note, Page, Tabs } from "../ui.js";
import { EVERYTHING, SEE_PEOPLE, may } from "../permit.js";
import { Mails } from "./settings_mails.js";
import { Oneself } from "./settings_oneself.js";
import { People } from "./settings_people.js";
import { Roles } from "./settings_roles.js";
import { Webhooks } from "./settings_webhooks.js";
import { Server } from "./settings_server.js";

/** Parts, and what one has to be allowed for some of them. */
const PARTS = [
  ["you", "You", Oneself],
  ["people", "People", People, SEE_PEOPLE],
  ["roles", "Roles", Roles, SEE_PEOPLE],
  ["mails", "Mails", Mails, EVERYTHING],
  ["webhooks", "Webhooks", Webhooks, EVERYTHING],
  ["server", "Server", Server],
];

export function Settings({ route, me }) {
  const now = PARTS.find(([name]) => name === route.query.tab) ?? PARTS[0];
  const [, , Part, needed] = now;
  return html`
    <${Page} title="Settings">
      <${Tabs} path=${["settings"]} now=${now[0]} tabs=${PARTS.filter((one) => one === now || !one[3] || may(one[3]))} />
      ${needed && !may(needed) ? html`<${Note} kind="wait">Your roles do not let you see this part.<//>` : html`<${Part} key=${now[0]} me=${me} />`}
    <//>
  `;
}
