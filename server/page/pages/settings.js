// What is set for everybody, and for oneself.

import { html } from "../html.js";
import { Page, Tabs } from "../ui.js";
import { Mails } from "./settings_mails.js";
import { Oneself } from "./settings_oneself.js";
import { People } from "./settings_people.js";
import { Roles } from "./settings_roles.js";
import { Webhooks } from "./settings_webhooks.js";
import { Server } from "./settings_server.js";

const PARTS = [
  ["you", "You", Oneself],
  ["people", "People", People],
  ["roles", "Roles", Roles],
  ["mails", "Mails", Mails],
  ["webhooks", "Webhooks", Webhooks],
  ["server", "Server", Server],
];

export function Settings({ route, me }) {
  const now = PARTS.find(([name]) => name === route.query.tab) ?? PARTS[0];
  const [, , Part] = now;
  return html`
    <${Page} title="Settings">
      <${Tabs} path=${["settings"]} now=${now[0]} tabs=${PARTS.map(([name, title]) => [name, title])} />
      <${Part} key=${now[0]} me=${me} />
    <//>
  `;
}
