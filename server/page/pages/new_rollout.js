// A new roll-out, on one page: what, where, when, and when it is to stop; beside it what that would do, before it is done.

import { html, useEffect, useRef, useState } from "../html.js";
import { call, get, segment } from "../api.js";
import { Card, Choice, Field, Form, Loaded, Note, Page, Problem, changed, presses, say, useLoad } from "../ui.js";
import { counted, number } from "../words.js";
import { go, to } from "../route.js";
import { DEPLOY, SEE_ROLLOUTS, groupsFor, may, maySomewhere } from "../permit.js";
import { ReleaseField } from "./choose.js";
import { useLater } from "./later.js";
import { DAYS, MOST_DEVICES, SHAPES, bodyOf, idsOf, missing, newPlan, newRule, newWindow, refusal, said, withPhase, withoutPhase } from "./plan.js";
import { Timeline, sizeWords } from "./timeline.js";

const LIST = "v2/deployments/deployments";
const AT_ONCE = 500;

/** What the address asks for: a release, devices, a group, a dynamic group, or those that have failed in another roll-out. */
async function fromAddress(query, signal) {
  const plan = newPlan();
  if (query.release) plan.release = query.release;
  if (query.group) plan.target = { ...plan.target, kind: "group", group: query.group };
  if (query.filter) plan.target = { ...plan.target, kind: "filter", filter: query.filter };
  if (query.devices) plan.target = { ...plan.target, kind: "devices", devices: idsOf(query.devices).join("\n") };
  if (!query.retry) return { plan };
  const path = `${LIST}/${segment(query.retry)}`;
  const { data: before } = await get(path, undefined, { signal });
  const failed = [];
  let total = 0;
  for (let page = 1; failed.length < MOST_DEVICES; page += 1) {
    const part = await get(`${path}/devices/list`, { status: "failure", page, per_page: AT_ONCE }, { signal });
    total = part.total;
    failed.push(...part.data.map((device) => device.id));
    if (part.data.length < AT_ONCE) break;
  }
  const devices = failed.slice(0, MOST_DEVICES);
  return {
    plan: { ...plan, release: before.artifact_name, name: again(before.name), target: { ...plan.target, kind: "devices", devices: devices.join("\n") } },
    retried: { name: before.name, id: before.id, devices: devices.length, total },
  };
}

/** `Spring`, `Spring, again`, `Spring, again 2`: names of roll-outs have 256 characters. */
function again(name) {
  const found = /^(.*), again(?: (\d+))?$/.exec(name);
  const base = (found?.[1] ?? name).slice(0, 240);
  return found ? `${base}, again ${Number(found[2] ?? 1) + 1}` : `${base}, again`;
}

export function NewRollout({ route }) {
  if (!maySomewhere(DEPLOY)) {
    return html`<${Page} title="New roll-out" back=${{ href: "#/rollouts", name: "All roll-outs" }}><${Note} kind="wait">Your roles do not let you make a roll-out.<//><//>`;
  }
  return html`<${Begun} route=${route} />`;
}

function Begun({ route }) {
  const begin = useLoad((signal) => fromAddress(route.query, signal), [JSON.stringify(route.query)]);
  return html`
    <${Page} title="New roll-out" back=${{ href: "#/rollouts", name: "All roll-outs" }}>
      <${Loaded} of=${begin}>${(data) => html`<${Editor} begin=${data} />`}<//>
    <//>
  `;
}

/** The name of a roll-out that nobody has named. */
const suggested = (release) => (release.trim() ? `${release.trim()}, ${new Date().toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" })}` : "");

function Editor({ begin: { plan: first, retried } }) {
  const [plan, setPlan] = useState(first);
  const [named, setNamed] = useState(first.name !== "");
  const [tried, setTried] = useState(false);
  const [refused, setRefused] = useState();
  const top = useRef();
  const shown = named ? plan : { ...plan, name: suggested(plan.release) };
  const change = (members) => {
    setRefused(undefined);
    setPlan((before) => ({ ...before, ...members }));
  };
  const dry = useDryRun(shown);
  const lacks = missing(shown);
  const found = refused ?? dry.refused;
  // What the server says about a field stands at the field; what is not filled in yet is said after the first try.
  const wrong = { ...(tried ? lacks : {}), ...(found?.field ? { [found.field]: found.words } : {}) };
  const send = async () => {
    setTried(true);
    if (Object.keys(lacks).length) throw new Error("Something is missing; it says so above.");
    const body = bodyOf(shown);
    // People whose roles are limited to a group may ask for that group by its path only.
    const { group, ...rest } = body;
    const path = group === undefined ? LIST : `${LIST}/group/${segment(group)}`;
    try {
      const { location } = await call("POST", path, { json: rest });
      say(`Roll-out ${body.name} is made.`);
      // Who may make one for a group may not see it for that.
      go(may(SEE_ROLLOUTS) ? to(["rollouts", location.split("/").at(-1)]) : to(["devices"], { group }));
    } catch (error) {
      const why = refusal(error);
      setRefused(why);
      if (why.field) top.current?.querySelector(`[data-part="${why.field}"]`)?.scrollIntoView({ block: "center" });
      throw why.field ? new Error(`It was refused: ${why.words}`) : error;
    }
  };
  return html`
    <div class="editor" ref=${top}>
      ${retried && html`<${Note} kind=${retried.devices < retried.total ? "wait" : "plain"}><span>For the ${counted(retried.devices, "device")} that failed in <a href=${to(["rollouts", retried.id])}>${retried.name}</a>${retried.devices < retried.total ? `, which are the first of ${number(retried.total)}: no more can be named in one` : ""}.</span><//>`}
      <${Form} name="Roll out" send=${send}>
        <div>
          <${What} plan=${shown} change=${change} wrong=${wrong} setName=${(name) => { setNamed(true); change({ name }); }} deployment=${found?.deployment} />
          <${Where} plan=${shown} change=${change} wrong=${wrong} />
          <${When} plan=${shown} change=${change} wrong=${wrong} dry=${dry.data} />
          <${Stop} plan=${shown} change=${change} wrong=${wrong} />
          <${More} plan=${shown} change=${change} wrong=${wrong} />
        </div>
        <div class="beside"><${DryRun} plan=${shown} dry=${dry} lacks=${lacks} /></div>
      <//>
    </div>
  `;
}

/** What the plan would do: asked when the typing has stopped. The last answer stays until there is another one. */
function useDryRun(plan) {
  const lacks = missing({ ...plan, name: plan.name || "?" });
  const body = JSON.stringify(Object.keys(lacks).length ? null : { ...bodyOf(plan), name: plan.name.trim() || "?" });
  const wanted = useLater(body, 400);
  const last = useRef();
  const load = useLoad(async (signal) => (wanted === "null" ? null : (await call("POST", `${LIST}/dry_run`, { json: JSON.parse(wanted), signal })).data), [wanted]);
  useEffect(() => {
    if (load.data !== undefined) last.current = load.data;
  }, [load.data]);
  const isOld = load.loading || wanted !== body;
  const why = load.error && !isOld ? refusal(load.error) : undefined;
  const data = load.data !== undefined ? load.data : load.error ? undefined : last.current;
  return { data: body === "null" ? undefined : (data ?? undefined), isOld: isOld && body !== "null", refused: why?.field ? why : undefined, error: why && !why.field ? load.error : undefined, reload: load.reload };
}

const NOT_ALLOWED = "Your roles do not let you ask that about these devices. You may be allowed to roll out all the same; the server says so when you press the button.";

function DryRun({ plan, dry, lacks }) {
  const asks = [lacks.release, lacks.target, lacks.phases, lacks.stop].filter(Boolean);
  return html`
    <${Card} title="What it would do">
      <div aria-live="polite" aria-busy=${dry.isOld ? "true" : "false"}>
        ${asks.length > 0
          ? html`<p class="quiet">That is said here once there is enough to ask for.</p><ul>${asks.map((one) => html`<li key=${one}>${one}</li>`)}</ul>`
          : html`
              ${dry.error && (dry.error.status === 403 ? html`<p>${NOT_ALLOWED}</p>` : html`<${Problem} error=${dry.error} again=${dry.reload} />`)}
              ${dry.refused && html`<${Note} kind="bad"><span>It would be refused: ${dry.refused.words}</span><//>`}
              ${!dry.data && !dry.error && !dry.refused && html`<p class="quiet">The server works it out…</p>`}
              ${dry.data && !dry.refused && html`<ul class=${dry.isOld ? "said old" : "said"}>${said(dry.data, plan).map((line) => html`<${Line} key=${line.words} line=${line} />`)}</ul>`}
            `}
      </div>
      <p class="quiet">Nothing is made before you press “Roll out”. What devices have reported stands for what they will say when they ask.</p>
    <//>
  `;
}

const Line = ({ line }) => html`
  <li class=${line.kind}>
    ${line.deployment ? html`<a href=${to(["rollouts", line.deployment])}>${line.words}</a>` : line.words}
    ${line.devices?.length > 0 && html`<details><summary>Such as</summary><ul>${line.devices.map((id) => html`<li key=${id}><a class="id" href=${to(["devices", id])}>${id}</a></li>`)}</ul></details>`}
  </li>
`;

/** A part of the form, with what the server says against it. */
const Part = ({ name, title, wrong, children }) => html`
  <fieldset class="card" data-part=${name}>
    <legend>${title}</legend>
    ${children}
    ${wrong && html`<p class="wrong-words" role="alert">${wrong}</p>`}
  </fieldset>
`;

function What({ plan, change, wrong, setName, deployment }) {
  return html`
    <${Part} name="release" title="What">
      <${ReleaseField} required value=${plan.release} error=${wrong.release} hint="A part of its name is enough to find it." onRelease=${(release) => change({ release })} />
      <div data-part="name">
        <${Field} label="Name of the roll-out" required maxlength="256" value=${plan.name} error=${wrong.name} onInput=${(event) => setName(event.target.value)} />
        ${deployment && html`<p><a href=${to(["rollouts", deployment])}>To the one that runs</a></p>`}
      </div>
    <//>
  `;
}

function Where({ plan, change, wrong }) {
  const { target } = plan;
  const own = groupsFor(DEPLOY);
  const groups = useLoad(async (signal) => (own ? { data: own } : get("v1/inventory/groups", undefined, { signal })), []);
  const filters = useLoad(async (signal) => (own ? { data: [] } : get("v2/inventory/filters", { per_page: 500 }, { signal })), []);
  const set = (members) => change({ target: { ...target, ...members } });
  const kind = (name, title) => html`
    <label class="check"><input type="radio" name="target" value=${name} checked=${target.kind === name} onChange=${() => set({ kind: name })} /> ${title}</label>
  `;
  return html`
    <${Part} name="target" title="Where" wrong=${wrong.target}>
      ${may(DEPLOY) && kind("all", "All accepted devices")}
      ${kind("group", "A group")}
      ${target.kind === "group" && html`<${Pick} label="Group" by="name" value=${target.group} of=${(groups.data?.data ?? []).map((name) => [name, name])} load=${groups} none="There is no group yet: devices are put into one on their page." onPick=${(group) => set({ group })} />`}
      ${may(DEPLOY) && kind("filter", "A dynamic group: each device that belongs to it when it asks")}
      ${target.kind === "filter" && html`
        <${Pick} label="Dynamic group" by="id" value=${target.filter} of=${(filters.data?.data ?? []).map((one) => [one.id, one.name])} load=${filters} none="There is no dynamic group yet: a search in the list of devices is kept as one." onPick=${(filter) => set({ filter })} />
        <${Field} label="Ends after so many devices" type="number" min="1" hint="Empty: it goes on until it is aborted." value=${target.most} onInput=${(event) => set({ most: event.target.value })} />
      `}
      ${kind("devices", "Chosen devices")}
      ${target.kind === "devices" && html`
        <${Field} label="Ids of the devices" hint=${`${counted(idsOf(target.devices).length, "device")}; one a line, or with commas between`}>
          ${(id, said) => html`<textarea id=${id} aria-describedby=${said} rows=${Math.min(8, Math.max(3, idsOf(target.devices).length))} value=${target.devices} onInput=${(event) => set({ devices: event.target.value })}></textarea>`}
        <//>
      `}
    <//>
  `;
}

function Pick({ label, by, value, of, load, none, onPick }) {
  if (load.error?.status === 403) return html`<${Field} label=${label} value=${value} hint=${`Your roles do not let you see which there are: write its ${by}.`} onInput=${(event) => onPick(event.target.value.trim())} />`;
  if (load.error) return html`<${Problem} error=${load.error} again=${load.reload} />`;
  if (load.data && of.length === 0) return html`<p class="quiet">${none}</p>`;
  const known = of.some(([one]) => one === value) || !value ? of : [[value, value], ...of];
  return html`
    <${Choice} label=${label} value=${value} options=${[["", "choose"], ...known]} onChoice=${onPick} />
  `;
}

function When({ plan, change, wrong, dry }) {
  const { phases, canaries, target } = plan;
  const isFilter = target.kind === "filter";
  const unit = isFilter ? "devices" : plan.unit;
  const shape = (name) => () => {
    const made = SHAPES[name].make(Date.now());
    change({ ...made, canaries: { ...canaries, on: made.canaries } });
  };
  const setPhase = (at, members) => change({ phases: changed(phases, at, members) });
  const setCanaries = (members) => change({ canaries: { ...canaries, ...members } });
  const turn = (on) => {
    if (!on) return setCanaries({ on });
    const made = phases.length ? { phases } : SHAPES.canaries.make(Date.now());
    change({ phases: made.phases, canaries: { ...canaries, on } });
  };
  return html`
    <${Part} name="phases" title="When" wrong=${wrong.phases}>
      <div class="actions">
        ${Object.entries(SHAPES).map(([name, { title }]) => html`<button key=${name} type="button" disabled=${isFilter && name !== "once"} onClick=${shape(name)}>${title}</button>`)}
        <button type="button" onClick=${() => change(withPhase(plan, Date.now()))}>Add a phase</button>
      </div>
      ${phases.length === 0 && html`<p>Every device may begin as soon as it asks.</p>`}
      ${phases.length > 0 && html`
        ${!isFilter && html`<${Choice} label="Sizes are" value=${unit} options=${[["percent", "percent of the devices"], ["devices", "numbers of devices"]]} onChoice=${(wanted) => change({ unit: wanted })} />`}
        <ol class="phases">
          ${phases.map((phase, at) => html`
            <li key=${at} class="row">
              ${at === 0 && canaries.on
                ? html`<span class="fixed">Chosen devices</span>`
                : at === phases.length - 1
                  ? html`<span class="fixed">The rest</span>`
                  : html`<${Field} label=${`Phase ${at + 1}: ${unit === "percent" ? "percent" : "devices"}`} type="number" min=${unit === "percent" ? "0.01" : "1"} max=${unit === "percent" ? "100" : undefined} step=${unit === "percent" ? "any" : "1"} required value=${phase.size} onInput=${(event) => setPhase(at, { size: event.target.value })} />`}
              <${Field} label=${`Phase ${at + 1} begins`} type="datetime-local" required=${at > 0} value=${phase.start} hint=${at === 0 ? "empty: at once" : ""} onInput=${(event) => setPhase(at, { start: event.target.value })} />
              <button type="button" aria-label=${`Take phase ${at + 1} away`} onClick=${() => change(withoutPhase(plan, at))}>×</button>
            </li>
          `)}
        </ol>
        <p class="quiet">Times are those of this browser (${Intl.DateTimeFormat().resolvedOptions().timeZone}).</p>
        <${Planned} plan=${plan} unit=${unit} dry=${dry} />
      `}
      <div data-part="canaries">
        <label class="check"><input type="checkbox" checked=${canaries.on} disabled=${isFilter && !canaries.on} onChange=${(event) => turn(event.target.checked)} /> Some devices of each kind go first</label>
        ${canaries.on && html`<div class="row">
          <${Field} label="How many" type="number" min="1" max="200" required value=${canaries.count} onInput=${(event) => setCanaries({ count: event.target.value })} />
          <${Field} label="Different in" required value=${canaries.spread} hint="device_type, tags/region, inventory/…; up to 4" onInput=${(event) => setCanaries({ spread: event.target.value })} />
        </div>`}
        ${wrong.canaries && html`<p class="wrong-words" role="alert">${wrong.canaries}</p>`}
      </div>
    <//>
  `;
}

/** The phases as they are filled in; how many devices each is for, the dry run says. */
function Planned({ plan, unit, dry }) {
  const body = bodyOf({ ...plan, unit });
  const counts = dry?.phases ?? [];
  const drawn = body.phases.map((phase, at) => ({
    start: phase.start_ts ? Date.parse(phase.start_ts) : null,
    count: counts.length === body.phases.length ? counts[at].device_count : undefined,
    words: at === 0 && plan.canaries.on ? `${plan.canaries.count} chosen devices first` : sizeWords(phase, { last: at === body.phases.length - 1 }),
  }));
  return html`<${Timeline} phases=${drawn} total=${dry?.device_count ?? 0} />`;
}

function Stop({ plan, change, wrong }) {
  const set = (at, members) => change({ stop: changed(plan.stop, at, members) });
  return html`
    <${Part} name="stop" title="When it stops by itself" wrong=${wrong.stop}>
      ${plan.stop.length === 0 && html`<p class="quiet">Never: it goes on however many fail.</p>`}
      ${plan.stop.map((rule, at) => html`
        <div key=${at} class="row rule" role="group" aria-label=${`Rule ${at + 1}`}>
          <${Field} label="More failed than" type="number" min="0" step=${rule.kind === "percent" ? "any" : "1"} required value=${rule.most} onInput=${(event) => set(at, { most: event.target.value })} />
          <${Choice} label="counted in" value=${rule.kind} options=${[["percent", "percent of those that ended"], "devices"]} onChoice=${(kind) => set(at, { kind })} />
          ${rule.kind === "percent"
            ? html`<${Field} label="once so many ended" type="number" min="1" value=${rule.after} onInput=${(event) => set(at, { after: event.target.value })} />`
            : html`<${Field} label="within minutes" type="number" min="0" step="any" hint="empty: in all" value=${rule.within} onInput=${(event) => set(at, { within: event.target.value })} />`}
          <${Choice} label="then" value=${rule.then} options=${[["hold", "hold: a person decides"], ["abort", "abort: it ends for all"]]} onChoice=${(then) => set(at, { then })} />
          <button type="button" aria-label=${`Take rule ${at + 1} away`} onClick=${() => change({ stop: plan.stop.filter((_, other) => other !== at) })}>×</button>
        </div>
      `)}
      <button ...${presses(() => change({ stop: [...plan.stop, newRule()] }), plan.stop.length >= 20)}>Add a rule</button>
    <//>
  `;
}

function More({ plan, change, wrong }) {
  const { windows, budget, pauses } = plan;
  const config = useLoad(async (signal) => (may(DEPLOY) ? get("v1/deployments/config", undefined, { signal }) : {}), []);
  const makesDeltas = config.data?.data?.delta?.enabled;
  const setWindow = (at, members) => change({ windows: { ...windows, open: changed(windows.open, at, members) } });
  const isAsked = windows.on || budget.mib || budget.loading || plan.force || plan.delta || Number(plan.retries) > 0 || Object.values(pauses).some(Boolean);
  const isWrong = Boolean(wrong.windows || wrong.budget || wrong.retries || wrong.pauses);
  const [open, setOpen] = useState(Boolean(isAsked));
  useEffect(() => {
    if (isWrong) setOpen(true);
  }, [isWrong]);
  return html`
    <details class="card more" open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary>More: tries, hours, budget, deltas, pauses</summary>
      <div class="row">
        <${Field} label="Tries again after a failure" type="number" min="0" max="100" value=${plan.retries} error=${wrong.retries} onInput=${(event) => change({ retries: event.target.value })} />
      </div>
      <label class="check"><input type="checkbox" checked=${plan.force} onChange=${(event) => change({ force: event.target.checked })} /> Install it also where it is installed</label>
      <label class="check"><input type="checkbox" checked=${plan.delta} disabled=${makesDeltas === false} onChange=${(event) => change({ delta: event.target.checked })} />
        Have the server make deltas for it${makesDeltas === false && html` <span class="quiet">(this server makes none: it was started without --deltas)</span>`}</label>
      <${Part} name="windows" title="Hours" wrong=${wrong.windows}>
        <label class="check"><input type="checkbox" checked=${windows.on} onChange=${(event) => change({ windows: { ...windows, on: event.target.checked } })} /> Devices begin at some hours only, by their own clocks</label>
        ${windows.on && html`
          ${windows.open.map((one, at) => html`
            <div key=${at} class="row rule" role="group" aria-label=${`Hours ${at + 1}`}>
              <div class="days" role="group" aria-label="Days; none is every day">
                ${DAYS.map((day) => html`<label key=${day} class="check"><input type="checkbox" checked=${one.days.includes(day)} onChange=${(event) => setWindow(at, { days: DAYS.filter((other) => (other === day ? event.target.checked : one.days.includes(other))) })} /> ${day}</label>`)}
              </div>
              <${Field} label="From" type="time" required value=${one.from} onInput=${(event) => setWindow(at, { from: event.target.value })} />
              <${Field} label="to" type="time" required value=${one.to} onInput=${(event) => setWindow(at, { to: event.target.value })} />
              ${windows.open.length > 1 && html`<button type="button" aria-label=${`Take hours ${at + 1} away`} onClick=${() => change({ windows: { ...windows, open: windows.open.filter((_, other) => other !== at) } })}>×</button>`}
            </div>
          `)}
          <button type="button" onClick=${() => change({ windows: { ...windows, open: [...windows.open, newWindow()] } })}>Add hours</button>
          <${Field} label="Clock of devices that do not report utc_offset" placeholder="+02:00" value=${windows.offset} hint="Their difference from UTC; empty: such devices wait." onInput=${(event) => change({ windows: { ...windows, offset: event.target.value.trim() } })} />
        `}
      <//>
      <${Part} name="budget" title="Budget" wrong=${wrong.budget}>
        <div class="row">
          <${Field} label="MiB an hour" type="number" min="1" value=${budget.mib} hint="empty: no limit" onInput=${(event) => change({ budget: { ...budget, mib: event.target.value } })} />
          <${Field} label="Devices that load at a time" type="number" min="1" value=${budget.loading} hint="empty: no limit" onInput=${(event) => change({ budget: { ...budget, loading: event.target.value } })} />
        </div>
      <//>
      <${Part} name="pauses" title="Pauses" wrong=${wrong.pauses}>
        <${PauseTicks} pauses=${pauses} onPauses=${(next) => change({ pauses: next })} />
      <//>
    </details>
  `;
}

export const PauseTicks = ({ pauses, onPauses }) => html`
  <p class="quiet">For clients that understand update control maps. The others go on.</p>
  ${["installing", "rebooting", "committing"].map((name) => html`
    <label key=${name} class="check"><input type="checkbox" checked=${pauses[name]} onChange=${(event) => onPauses({ ...pauses, [name]: event.target.checked })} /> Devices wait before ${name}</label>
  `)}
`;
