// One roll-out: how far it is, what is in its way, and what can be done about it. It is asked again while it runs.

import { html, useEffect, useRef, useState } from "../html.js";
import { get, isSame, patch, put, remove, segment } from "../api.js";
import { Bar, Card, Choice, Confirm, Dialog, Empty, Form, Loaded, Note, Page, Pager, Status, Table, Time, say, useLoad, usePages } from "../ui.js";
import { bytes, counted, number, percent, sentence, short } from "../words.js";
import { pageIn, to, useQuery } from "../route.js";
import { DEPLOY, may, maySomewhere } from "../permit.js";
import { needsOf } from "./artifact.js";
import { Curve, before, pace, withPoint } from "./curve.js";
import { Failures } from "./failures.js";
import { Log } from "./log.js";
import { Named, useNames } from "./names.js";
import { PauseTicks } from "./new_rollout.js";
import { controlMap, duration, pausesOf, ruleWords, windowWords } from "./plan.js";
import { ENDED, GOOD, StateOf, paused, progressParts, sum } from "./progress.js";
import { JobTable } from "./releases.js";
import { Timeline, sizeWords } from "./timeline.js";

const LIST = "v2/deployments/deployments";
const OFTEN = 3000;
const PER_PAGE = 20;
/** Devices whose times the beginning of the curve is drawn from. */
const TIMES = 200;

export function Rollout({ route }) {
  const id = route.path[1];
  const path = `${LIST}/${segment(id)}`;
  const rollout = useLoad((signal) => get(path, undefined, { signal }), [path], { every: (found) => (found?.data.status === "finished" ? undefined : OFTEN) });
  const data = rollout.data?.data;
  if (rollout.error?.status === 404 || rollout.error?.status === 400) {
    return html`<${Page} title="There is no such roll-out" back=${BACK}><${Empty}>The address leads to none. <a href="#/rollouts">To the roll-outs</a><//><//>`;
  }
  return html`
    <${Page} title=${data?.name ?? "Roll-out"} back=${BACK} actions=${data && html`<${Actions} rollout=${data} etag=${rollout.data.etag} path=${path} reload=${rollout.reload} />`}>
      <${Loaded} of=${rollout}>${(found) => html`<${Shown} key=${id} rollout=${found.data} etag=${found.etag} path=${path} route=${route} reload=${rollout.reload} />`}<//>
    <//>
  `;
}
const BACK = { href: "#/rollouts", name: "All roll-outs" };

/** Changes it if it is still as it was seen, or is as `isDone` wants it already; else says so. */
async function asSeen(change, reload, isDone = () => false) {
  try {
    await change();
  } catch (error) {
    // Who sends again what had no answer has changed it themselves.
    if (error.status === 412 && (await isDone())) return;
    if (error.status === 412) throw new Error("Somebody else, or a stop rule, has changed it meanwhile, and nothing was done. Close this, look at what it is like now, and decide again.");
    if (error.status === 422) throw new Error("It has ended meanwhile.");
    throw error;
  } finally {
    reload();
  }
}

const ASKS = {
  held: { title: "Hold it?", name: "Hold", danger: false, words: "No further device begins. Those that have begun go on. It can be let go on at any time." },
  inprogress: { title: "Let it go on?", name: "Let it go on", danger: false, words: "Devices may begin again when they ask. A rule that has held it stays: another failure holds it again." },
  aborted: { title: "Abort it?", name: "Abort", danger: true, words: "It ends for all devices that have not ended it; those that are at it stop where they safely can. This cannot be taken back." },
};
const IS_DONE = {
  held: (rollout) => rollout.status !== "finished" && Boolean(rollout.held),
  inprogress: (rollout) => rollout.status !== "finished" && !rollout.held,
  aborted: (rollout) => rollout.status === "finished",
};
const DONE = { held: "It is held.", inprogress: "It goes on.", aborted: "It is aborted." };

function Actions({ rollout, etag, path, reload }) {
  // What is asked is about what was seen when it was asked.
  const [asked, setAsked] = useState();
  const failed = rollout.statistics.status.failure ?? 0;
  const runs = rollout.status !== "finished";
  const mayDeploy = may(DEPLOY);
  const ask = (status) => () => {
    hadNoAnswer.current = false;
    setAsked({ status, etag });
  };
  // Whether a try of this window had no answer: only then what it asks for may have been done by it.
  const hadNoAnswer = useRef(false);
  const send = async () => {
    const change = () =>
      put(`${path}/status`, { status: asked.status }, { etag: asked.etag }).catch((error) => {
        hadNoAnswer.current ||= error.isLost;
        throw error;
      });
    await asSeen(change, reload, async () => hadNoAnswer.current && IS_DONE[asked.status]((await get(path)).data));
    say(DONE[asked.status]);
  };
  const words = asked && ASKS[asked.status];
  return html`
    ${runs && mayDeploy && rollout.held && html`<button type="button" class="main" onClick=${ask("inprogress")}>Let it go on</button>`}
    ${runs && mayDeploy && !rollout.held && html`<button type="button" onClick=${ask("held")}>Hold</button>`}
    ${runs && mayDeploy && html`<button type="button" class="danger" onClick=${ask("aborted")}>Abort</button>`}
    ${!runs && failed > 0 && rollout.type === "software" && maySomewhere(DEPLOY) && html`<a class="button main" href=${to(["rollouts", "new"], { retry: rollout.id })}>Retry the ${counted(failed, "device")} that failed</a>`}
    ${words && html`<${Confirm} title=${words.title} name=${words.name} danger=${words.danger} send=${send} close=${() => setAsked(undefined)}><p>${words.words}</p><//>`}
  `;
}

function Shown({ rollout, etag, path, route, reload }) {
  const counts = rollout.statistics.status;
  const runs = rollout.status !== "finished";
  const failed = counts.failure ?? 0;
  const [log, setLog] = useState();
  return html`
    ${rollout.held && html`<${Note} kind=${runs ? "wait" : "bad"}><span><strong>${runs ? "It is held" : "It was stopped"}:</strong> ${rollout.held}.</span><//>`}
    <${Card} title="How far it is">
      <p><${StateOf} rollout=${rollout} /> ${summary(rollout)}</p>
      <${Bar} parts=${progressParts(rollout)} label="Devices by how far they are" />
      <${Progress} rollout=${rollout} path=${path} />
    <//>
    <div class="cards">
      <${Card} title="What it is"><${Facts} rollout=${rollout} /><//>
      ${rollout.phases && html`<${Card} title="Phases"><${PhasesOf} rollout=${rollout} /><//>`}
      ${(rollout.update_control_map || paused(counts) > 0) && html`<${Pauses} key=${JSON.stringify(rollout.update_control_map)} rollout=${rollout} etag=${etag} path=${path} reload=${reload} />`}
    </div>
    <div class="cards">
      ${rollout.autogenerate_delta && html`<${Card} title="Deltas for it" wide><${Jobs} id=${rollout.id} runs=${runs} /><//>`}
      ${counts.noartifact > 0 && html`<${Note} kind="wait"><span>${counted(counts.noartifact, "device")} got nothing, because no artifact of the release fits. <a href=${to(route.path, { status: "noartifact" })}>Show which</a></span><//>`}
      ${failed > 0 && html`<${Card} title="Failures" wide><${Failures} path=${path} failed=${failed} onLog=${setLog} /><//>`}
      <${Devices} rollout=${rollout} path=${path} route=${route} onLog=${setLog} reload=${reload} />
    </div>
    ${log && html`<${Log} deployment=${rollout} device=${log} close=${() => setLog(undefined)} />`}
  `;
}

const totalOf = (rollout) => progressParts(rollout).reduce((all, part) => all + part.count, 0);

function summary(rollout) {
  const counts = rollout.statistics.status;
  const total = totalOf(rollout);
  const ended = sum(counts, ENDED);
  const saved = rollout.statistics.saved_size;
  return html`
    ${number(ended)} of ${counted(total, "device")} ${ended === 1 ? "has" : "have"} ended it (${percent(ended, total)}), ${number(sum(counts, GOOD))} with success.
    ${saved > 0 && html` Deltas have saved <strong>${bytes(saved)}</strong>.`}
  `;
}

/** The curve of this roll-out. Only its statistics are asked for again and again; once, the times of some devices. */
function Progress({ rollout, path }) {
  const counts = rollout.statistics.status;
  const isOver = rollout.status === "finished";
  const now = { time: isOver ? Date.parse(rollout.finished) : Date.now(), good: sum(counts, GOOD), bad: sum(counts, ENDED) - sum(counts, GOOD) };
  const opened = useRef(now);
  const points = useRef([]);
  useEffect(() => {
    points.current = withPoint(points.current, now);
  }, [rollout]);
  // When it ends while one looks, what was seen is all that is needed.
  const times = useLoad(async (signal) => {
    if (opened.current.good + opened.current.bad === 0) return { total: 0, of: [] };
    const found = await get(`${path}/devices/list`, { status: "finished", per_page: TIMES }, { signal });
    const of = found.data.filter((device) => device.finished).map((device) => ({ time: Date.parse(device.finished), isGood: GOOD.includes(device.status) }));
    return { total: found.total, of };
  }, [path]);
  const earlier = times.data ? before(times.data.of.filter((one) => one.time <= opened.current.time), opened.current.good, opened.current.bad) : [];
  const all = [...earlier, ...points.current.filter((point) => point.time > (earlier.at(-1)?.time ?? 0) && point.time < now.time), now];
  const isPart = times.data && times.data.of.length < times.data.total;
  const note = isPart ? `Before this page was open: estimated from ${number(times.data.of.length)} of ${number(times.data.total)} devices.` : undefined;
  return html`
    <${Curve} points=${all} start=${Date.parse(rollout.created)} end=${now.time} total=${totalOf(rollout)} note=${note} />
    ${!isOver && html`<${Pace} points=${points.current} left=${totalOf(rollout) - now.good - now.bad} />`}
  `;
}

function Pace({ points, left }) {
  const perSecond = pace(points, Date.now());
  if (perSecond === null || left <= 0) return null;
  if (perSecond === 0) return html`<p class="quiet">None has ended in the last minutes.</p>`;
  return html`<p class="quiet">About ${number(Math.max(1, Math.round(perSecond * 60)))} a minute end at the moment; as fast as that, the other ${number(left)} take ${duration(left / perSecond)}.</p>`;
}

function Facts({ rollout }) {
  const own = rollout.rust_ota ?? {};
  const target = rollout.groups.length
    ? html`group <a href=${to(["devices"], { group: rollout.groups[0] })}>${rollout.groups[0]}</a>`
    : rollout.filter
      ? html`dynamic group ${rollout.filter.name}: devices that belong to it when they ask${rollout.max_devices > 0 && `, ${counted(rollout.max_devices, "device")} at most`}`
      : html`${counted(rollout.device_count, "device")}`;
  return html`
    <dl class="facts">
      <dt>Release</dt><dd>${rollout.type === "configuration" ? "a configuration" : html`<a href=${to(["releases", rollout.artifact_name])}>${rollout.artifact_name}</a>`}</dd>
      <dt>For</dt><dd>${target}</dd>
      <dt>Made</dt><dd><${Time} at=${rollout.created} /></dd>
      ${rollout.finished && html`<dt>Ended</dt><dd><${Time} at=${rollout.finished} /></dd>`}
      <dt>Loaded</dt><dd>${bytes(rollout.statistics.total_size)}</dd>
      <dt>Saved by deltas</dt><dd>${rollout.statistics.saved_size ? `${bytes(rollout.statistics.saved_size)}, ${percent(rollout.statistics.saved_size, rollout.statistics.saved_size + rollout.statistics.total_size)} of what full images would have been` : "nothing"}</dd>
      <dt>Tries</dt><dd>${rollout.retries ? `${rollout.retries + 1}: ${counted(rollout.retries, "time")} again after a failure` : "one"}</dd>
      ${rollout.force_installation && html`<dt>Installed also</dt><dd>where it is installed already</dd>`}
      <dt>Stops by itself</dt><dd>${own.stop?.length ? own.stop.map((rule) => html`<div>${ruleWords(rule)}</div>`) : "never"}</dd>
      ${own.windows && html`<dt>Hours</dt><dd>${own.windows.open.map((one) => html`<div>${windowWords(one)}</div>`)}</dd>`}
      ${own.budget && html`<dt>Budget</dt><dd>${[own.budget.bytes_per_hour && `${bytes(own.budget.bytes_per_hour)} an hour`, own.budget.in_flight && `${counted(own.budget.in_flight, "device")} at a time`].filter(Boolean).join(", ")}</dd>`}
      ${own.canaries && html`<dt>Chosen to go first</dt><dd>different in ${own.canaries.spread_by.join(", ")}${own.canaries.devices && html`<details><summary>${counted(own.canaries.devices.length, "device")}</summary><ul>${own.canaries.devices.map((one) => html`<li key=${one}><a class="id" href=${to(["devices", one])}>${one}</a></li>`)}</ul></details>`}</dd>`}
      <dt>Id</dt><dd><code>${rollout.id}</code></dd>
    </dl>
  `;
}

function PhasesOf({ rollout }) {
  const total = totalOf(rollout);
  const hasCanaries = Boolean(rollout.rust_ota?.canaries);
  let left = total;
  const phases = rollout.phases.map((phase, at) => {
    const last = at === rollout.phases.length - 1;
    const wanted = last ? left : phase.batch_size_devices ?? Math.ceil((total * (phase.batch_size ?? 0)) / 100);
    const count = Math.min(left, wanted);
    left -= count;
    const start = Date.parse(phase.start_ts ?? (at === 0 ? rollout.created : ""));
    return { start: Number.isNaN(start) ? null : start, count, begun: phase.device_count, words: sizeWords(phase, { canaries: hasCanaries && at === 0, last }) };
  });
  return html`<${Timeline} phases=${phases} total=${total} now=${rollout.status === "finished" ? Date.parse(rollout.finished) : Date.now()} />`;
}

/** Where devices wait, and letting them go on. */
function Pauses({ rollout, etag, path, reload }) {
  const map = rollout.update_control_map ?? {};
  const known = pausesOf(map);
  const [ticks, setTicks] = useState(known);
  const counts = rollout.statistics.status;
  const runs = rollout.status !== "finished";
  const waiting = Object.keys(ticks).filter((name) => counts[`pause_before_${name}`] > 0);
  const isChanged = JSON.stringify(ticks) !== JSON.stringify(known);
  const save = async () => {
    const states = { ...map.states, ...controlMap(ticks, known)?.states };
    const isDone = async () => isSame((await get(path)).data.update_control_map?.states, states);
    await asSeen(() => patch(path, { update_control_map: { priority: 0, ...map, states } }, { etag }), reload, isDone);
    say("Devices are told when they ask next.");
  };
  return html`
    <${Card} title="Pauses">
      ${waiting.map((name) => html`<${Note} key=${name} kind="wait"><span>${counted(counts[`pause_before_${name}`], "device")} ${counts[`pause_before_${name}`] === 1 ? "waits" : "wait"} before ${name}. ${may(DEPLOY) && `Take the tick away to let ${counts[`pause_before_${name}`] === 1 ? "it" : "them"} go on.`}</span><//>`)}
      ${runs && may(DEPLOY)
        ? html`<${Form} name="Save the pauses" send=${save} ready=${isChanged}><${PauseTicks} pauses=${ticks} onPauses=${setTicks} /><//>`
        : html`<p>${Object.keys(known).filter((name) => known[name]).map((name) => `Devices ${runs ? "wait" : "waited"} before ${name}. `)}</p>`}
    <//>
  `;
}

function Jobs({ id, runs }) {
  const jobs = useLoad((signal) => get(`${LIST}/releases/delta/jobs`, { deployment_id: id, per_page: 50 }, { signal }), [id], { every: runs ? 10000 : undefined });
  return html`<${Loaded} of=${jobs}>${({ data, total }) => html`
    <${JobTable} rows=${data} all=${total} empty="None is made: no image that its devices run is among the artifacts here, or the deltas are there already." />
  `}<//>`;
}

const KINDS = [["all", "all"], ["active", "not ended"], ["finished", "ended"], ["pause", "paused"]];

function Devices({ rollout, path, route, onLog, reload }) {
  const [query, setQuery] = useQuery(route);
  const [why, setWhy] = useState();
  const [ending, setEnding] = useState();
  const runs = rollout.status !== "finished";
  const status = query.status ?? "all";
  const page = pageIn(query);
  const turn = (next) => setQuery({ page: next });
  const list = usePages((range, signal) => get(`${path}/devices/list`, { status, ...range }, { signal }), [path, status, runs], { page, perPage: PER_PAGE, turn, every: runs ? OFTEN : undefined });
  const names = useNames((list.data?.data ?? []).map((row) => row.id));
  const counts = Object.entries(rollout.statistics.status).filter(([name, count]) => count > 0 || name === status);
  const retries = rollout.retries > 0;
  const end = async () => {
    await remove(`${path}/devices/${segment(ending)}`).catch((error) => {
      throw error.status === 422 ? new Error("The roll-out has ended meanwhile.") : error;
    });
    say("It is ended for the device.");
    list.reload();
    reload();
  };
  const canary = new Set(rollout.rust_ota?.canaries?.devices ?? []);
  return html`
    <${Card} title="Devices" wide>
      <div class="filters">
        <${Choice} label="Status" value=${status} options=${[...KINDS, ...counts.map(([name, count]) => [name, `${name.replaceAll("_", " ")} (${number(count)})`])]}
          onChoice=${(wanted) => setQuery({ status: wanted, page: undefined })} />
      </div>
      <${Loaded} of=${list}>${(found) => html`
        <${Table} caption="Devices of the roll-out" rows=${found.data} keyOf=${(row) => row.id} href=${(row) => to(["devices", row.id])}
          empty=${status === "all" ? "No device has asked for it yet." : "No device is like that."}
          columns=${[
            { title: "Device", show: (row) => html`${names[row.id] ? html`${names[row.id]} <small class="id quiet" title=${row.id}>${short(row.id)}</small>` : html`<span class="id">${row.id}</span>`}${canary.has(row.id) && " (goes first)"}` },
            { title: "Status", show: (row) => html`<${Status} value=${row.status} />` },
            { title: "Says", show: (row) => row.substate ?? "" },
            ...(retries ? [{ title: "Tries again", number: true, show: (row) => `${row.attempts ?? 0} of ${row.retries ?? rollout.retries}` }] : []),
            { title: "Type", show: (row) => row.device_type && html`<span class="together">${row.device_type}</span>` },
            { title: "Gets", show: (row) => row.image && html`<span class="together">${given(row.image)}</span>` },
            { title: "Begun", show: (row) => html`<${Time} at=${row.started} none="–" />` },
            { title: "Ended", show: (row) => html`<${Time} at=${row.finished} none="–" />` },
            { title: "More", show: (row) => (row.log || (runs && !ENDED.includes(row.status))) && html`<div class="actions">
              ${row.log && html`<button type="button" onClick=${() => onLog(row.id)}>Log<span class="unseen"> of ${row.id}</span></button>`}
              ${runs && row.status === "pending" && html`<button type="button" onClick=${() => setWhy(row.id)}>Why not yet<span class="unseen">: ${row.id}</span></button>`}
              ${runs && may(DEPLOY) && !ENDED.includes(row.status) && html`<button type="button" class="danger" onClick=${() => setEnding(row.id)}>End<span class="unseen"> it for ${row.id}</span></button>`}
            </div>` },
          ]} />
        <${Pager} page=${page} perPage=${PER_PAGE} total=${found.total} what=${found.total === 1 ? "device" : "devices"} onPage=${turn} />
      `}<//>
      ${why && html`<${Why} device=${why} id=${rollout.id} close=${() => setWhy(undefined)} />`}
      ${ending && html`<${Confirm} title="End it for this device?" name="End it for the device" send=${end} close=${() => setEnding(undefined)}>
        <p>Device <code>${ending}</code> gets no further part of it, and counts as aborted. The others go on. This cannot be taken back.</p>
      <//>`}
    <//>
  `;
}

/** What a device was given: how much, and whether that is a delta. */
const given = (image) => `${bytes(image.size)}${needsOf(image.meta_artifact).length ? " (delta)" : ""}`;

function Why({ device, id, close }) {
  const why = useLoad((signal) => get(`${LIST}/devices/${segment(device)}/why`, undefined, { signal }), [device]);
  return html`
    <${Dialog} title="Why the device has not got it" close=${close}>
      <p><${Named} device=${device} /></p>
      <${Loaded} of=${why}>${(found) => {
        const one = found.data.deployments.find((other) => other.deployment_id === id);
        return html`<p>${one ? sentence(one.reason) : "The roll-out is not active any more."}</p>
          <p class="quiet">Last heard of: <${Time} at=${found.data.last_heard} /></p>`;
      }}<//>
      <div class="actions"><button type="button" onClick=${close}>Close</button></div>
    <//>
  `;
}
