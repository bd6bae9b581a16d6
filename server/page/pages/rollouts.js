// Roll-outs: those that run, those that are to come, and those that were.

import { html } from "../html.js";
import { get } from "../api.js";
import { Bar, Choice, Field, Loaded, Page, Pager, Table, Tabs, Time, useLoad, usePages, useSteady } from "../ui.js";
import { bytes, number } from "../words.js";
import { pageIn, to, useQuery } from "../route.js";
import { DEPLOY, maySomewhere } from "../permit.js";
import { Search } from "./later.js";
import { ReleaseOf, StateOf, progressParts } from "./progress.js";

const PER_PAGE = 20;
const LIST = "v2/deployments/deployments";

/** Tabs, and the status of the API that each of them shows. */
const PARTS = [
  ["running", "Running", "inprogress"],
  ["pending", "Not begun", "pending"],
  ["scheduled", "Scheduled", "scheduled"],
  ["finished", "Finished", "finished"],
  ["all", "All", undefined],
];

const EMPTY = {
  running: "None runs at the moment.",
  pending: "There is none that waits for its first device.",
  scheduled: "None is to begin later.",
  finished: "None has ended yet.",
  all: "There is no roll-out yet.",
};

export function Rollouts({ route }) {
  const [query, setQuery] = useQuery(route);
  const isFiltered = Boolean(query.search || query.type || query.from || query.until);
  // Who looks for something does not know whether it runs still.
  const tab = query.tab ?? (query.search ? "all" : "running");
  const status = PARTS.find(([name]) => name === tab)?.[2];
  const page = pageIn(query);
  const turn = (next) => setQuery({ page: next });
  const sort = query.sort === "asc" ? "asc" : "desc";
  const wanted = { search: query.search, type: query.type, created_after: dayOf(query.from), created_before: dayOf(query.until, "end") };
  const list = usePages(
    (range, signal) => get(LIST, { ...wanted, status, sort, ...range }, { signal }),
    [JSON.stringify(wanted), tab, sort],
    { page, perPage: PER_PAGE, turn, every: tab === "finished" ? 30000 : 4000 },
  );
  const counts = useSteady(useLoad(async (signal) => {
    const totals = await Promise.all(PARTS.map(([, , one]) => get(LIST, { ...wanted, status: one, per_page: 1 }, { signal })));
    return Object.fromEntries(PARTS.map(([name], at) => [name, totals[at].total]));
  }, [JSON.stringify(wanted)], { every: 15000 }));
  const titled = PARTS.map(([name, title]) => [name, counts.data ? `${title} (${number(counts.data[name])})` : title]);
  const filter = (members) => setQuery({ ...members, page: undefined });
  return html`
    <${Page} title="Roll-outs" actions=${maySomewhere(DEPLOY) && html`<a class="button main" href="#/rollouts/new">New roll-out</a>`}>
      <${Tabs} tabs=${titled} now=${tab} path=${route.path} query=${{ ...query, page: undefined }} />
      <div class="filters">
        <${Search} label="Name or release" text=${query.search} onText=${(search) => filter({ search, tab: search ? (query.tab ?? "all") : query.tab })} />
        <${Choice} label="Type" value=${query.type} options=${[["", "any"], "software", "configuration"]} onChoice=${(type) => filter({ type })} />
        <${Field} label="Made from" type="date" value=${query.from ?? ""} onChange=${(event) => filter({ from: event.target.value })} />
        <${Field} label="until" type="date" value=${query.until ?? ""} onChange=${(event) => filter({ until: event.target.value })} />
        ${isFiltered && html`<a class="button" href=${to(route.path, { tab: query.tab })}>Show all</a>`}
      </div>
      <${Loaded} of=${list}>${(found) => html`
        <${Table} caption="Roll-outs" rows=${found.data} keyOf=${(row) => row.id} href=${(row) => to(["rollouts", row.id])}
          order=${`created:${sort}`} onOrder=${(order) => setQuery({ sort: order.split(":")[1], page: undefined })}
          empty=${isFiltered ? "No roll-out is like that." : html`${EMPTY[tab] ?? EMPTY.all} <${Others} tab=${tab} counts=${counts.data} path=${route.path} query=${query} /> ${maySomewhere(DEPLOY) && html`<a href="#/rollouts/new">Make one</a>`}`}
          columns=${[
            { title: "Name", show: (row) => row.name },
            { title: "Release", show: (row) => html`<${ReleaseOf} rollout=${row} />` },
            { title: "State", show: (row) => html`<${StateOf} rollout=${row} />` },
            { title: "Devices", show: (row) => html`<${Bar} parts=${progressParts(row)} />` },
            { title: "Saved", number: true, show: (row) => (row.statistics.saved_size ? bytes(row.statistics.saved_size) : "–") },
            { name: "created", title: "Made", sort: true, show: (row) => html`<${Time} at=${row.created} />` },
            { title: "Ended", show: (row) => html`<${Time} at=${row.finished} none="–" />` },
          ]} />
        <${Pager} page=${page} perPage=${PER_PAGE} total=${found.total} what=${found.total === 1 ? "roll-out" : "roll-outs"} onPage=${turn} />
      `}<//>
    <//>
  `;
}

/** Where those are that somebody may look for who sees that none runs. */
function Others({ tab, counts, path, query }) {
  if (tab !== "running" || !counts) return null;
  const links = [["pending", "wait for their first device"], ["scheduled", "begin later"]].filter(([name]) => counts[name] > 0);
  return links.map(([name, words]) => html`<a key=${name} href=${to(path, { ...query, tab: name, page: undefined })}>${number(counts[name])} ${words}.</a> `);
}

/** A day of the browser's clock as a time of the API. */
function dayOf(text, end) {
  const time = new Date(`${text}T${end ? "23:59:59" : "00:00:00"}`);
  return text && !Number.isNaN(time.getTime()) ? time.toISOString() : undefined;
}
