// What pages are made of. Each of these works with a keyboard and says to a screen reader what it is.

import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { isOut, onConnection } from "./api.js";
import { ago, looks, number, sentence } from "./words.js";
import { to } from "./route.js";

/**
 * Loads with `load(signal)` when one of `inputs` changes, and again every `every` milliseconds while somebody looks; that may be a
 * function of what was loaded last, which answers nothing for what changes no more. What has failed because nobody answered, or
 * because nobody was in, is asked for again when that is over.
 *
 * Answers `{data, error, loading, reload}`. What was loaded stays when a later load fails: `error` says so beside it.
 */
export function useLoad(load, inputs, { every } = {}) {
  const [state, setState] = useState({ loading: true });
  const [turn, setTurn] = useState(0);
  const latest = useRef();
  latest.current = { load, every };
  const failed = useRef();
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  useEffect(() => setState((before) => ({ ...before, data: undefined, error: undefined, loading: true })), inputs);
  useEffect(() => {
    const ended = new AbortController();
    let timer;
    let last;
    let isDue = false;
    async function once() {
      clearTimeout(timer);
      try {
        last = await latest.current.load(ended.signal);
        failed.current = undefined;
        if (!ended.signal.aborted) setState({ data: last, loading: false });
      } catch (error) {
        if (ended.signal.aborted || error.name === "AbortError") return;
        failed.current = error;
        setState((before) => ({ ...before, error, loading: false }));
      }
      later();
    }
    function later() {
      clearTimeout(timer);
      const step = typeof latest.current.every === "function" ? latest.current.every(last) : latest.current.every;
      if (step && !ended.signal.aborted) timer = setTimeout(again, step);
    }
    function again() {
      // A page that nobody sees asks nothing; it is asked when it is seen again.
      isDue = document.hidden || isOut();
      if (isDue) later();
      else once();
    }
    const seen = () => isDue && again();
    document.addEventListener("visibilitychange", seen);
    once();
    return () => {
      document.removeEventListener("visibilitychange", seen);
      ended.abort();
      clearTimeout(timer);
    };
  }, [...inputs, turn, typeof every === "function" ? "own" : every]);
  useEffect(() => {
    const retry = (event) => {
      const { status } = failed.current ?? {};
      if ((status === 0 && event !== "logged-in") || (status === 401 && event === "logged-in")) reload();
    };
    const online = () => retry("found");
    const forget = onConnection((event) => (event === "found" || event === "logged-in") && retry(event));
    addEventListener("online", online);
    return () => {
      forget();
      removeEventListener("online", online);
    };
  }, []);
  return { ...state, reload };
}

/** The same load with what was there before, while the next is on its way (`isOld`): who sorts or turns a page keeps the place. */
export function useSteady(of) {
  const before = useRef();
  if (of.data !== undefined || of.error) before.current = of.data;
  return { ...of, data: of.data ?? before.current, isOld: of.data === undefined && before.current !== undefined };
}

/**
 * A list of the API, of which `load({page, per_page}, signal)` gets one page, `{data, total}`. Who stands behind the last page, as
 * entries have gone, is led to it by `turn(page)`.
 */
export function usePages(load, inputs, { page, perPage, turn, every }) {
  const list = useSteady(useLoad((signal) => load({ page, per_page: perPage }, signal), [...inputs, page, perPage], { every }));
  useEffect(() => {
    const { data, total } = list.data ?? {};
    if (!list.isOld && total > 0 && data.length === 0 && page > 1) turn(Math.ceil(total / perPage));
  }, [list.data, list.isOld]);
  return list;
}

/** The frame of a page: its name, what can be done here, and what is there. The name is read out when one comes here. */
export function Page({ title, actions, back, children }) {
  const heading = useRef();
  useEffect(() => {
    document.title = `${title} – rust-ota`;
  }, [title]);
  useEffect(() => heading.current?.focus({ preventScroll: true }), []);
  return html`
    <div class="page-head">
      ${back && html`<a class="back" href=${back.href}>${back.name}</a>`}
      <h1 ref=${heading} tabindex="-1">${title}</h1>
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>
    ${children}
  `;
}

export const Card = ({ title, actions, children, wide }) => html`
  <section class=${wide ? "card wide" : "card"} aria-label=${title}>
    ${title && html`<div class="card-head"><h2>${title}</h2>${actions && html`<div class="actions">${actions}</div>`}</div>`}
    ${children}
  </section>
`;

/** What came of a load: the data, or that it is on its way, or why there is none. */
export function Loaded({ of, children }) {
  const shown = of.data !== undefined ? children(of.data) : of.loading && html`<p class="quiet" role="status">Loading…</p>`;
  return html`
    ${of.error && html`<${Problem} error=${of.error} again=${of.reload} />`}
    ${of.isOld === undefined ? shown : html`<div class="steady" aria-busy=${of.isOld ? "true" : "false"}>${shown}</div>`}
  `;
}

export const Problem = ({ error, again }) => html`
  <div class="note bad" role="alert">
    <span>${sentence(error.message)}</span>
    ${again && error.status !== 403 && html`<button type="button" onClick=${again}>Try again</button>`}
  </div>
`;

export const Note = ({ kind = "plain", children }) => html`<div class=${`note ${kind}`}>${children}</div>`;

export const Empty = ({ children }) => html`<div class="empty">${children}</div>`;

/** A status in words, with a mark that does not depend on colour. */
export const Status = ({ value, children }) => html`
  <span class=${`status ${looks(value)}`}>${children ?? String(value).replaceAll("_", " ")}</span>
`;

/** A moment, said as how long ago, with the exact time for whoever points at it. */
export function Time({ at, none = "never" }) {
  if (!at || Number.isNaN(Date.parse(at))) return html`<span class="quiet">${none}</span>`;
  return html`<time datetime=${at} title=${new Date(at).toLocaleString()}>${ago(at)}</time>`;
}

/**
 * A bar of parts `[{name, count, kind}]`. What it shows is said beneath it in words as well.
 */
export function Bar({ parts, label }) {
  const all = parts.reduce((sum, part) => sum + part.count, 0);
  let from = 0;
  return html`
    <figure class="bar">
      <svg viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label=${label ?? describe(parts)}>
        <rect class="bar-plain" width="1000" height="20" />
        ${parts.map((part) => {
          const width = all ? (1000 * part.count) / all : 0;
          const rect = html`<rect class=${`bar-${part.kind}`} x=${from} width=${width} height="20" />`;
          from += width;
          return rect;
        })}
      </svg>
      <figcaption>
        ${parts
          .filter((part) => part.count > 0)
          .map((part) => html`<span class=${`key ${part.kind}`}>${part.name} ${number(part.count)}</span>`)}
      </figcaption>
    </figure>
  `;
}
const describe = (parts) => parts.filter((part) => part.count).map((part) => `${part.count} ${part.name}`).join(", ");

/** A list of which one has other members. */
export const changed = (list, at, members) => list.map((one, other) => (other === at ? { ...one, ...members } : one));

/** A set with some members, or without them. */
export function ticked(set, keys, on) {
  const next = new Set(set);
  for (const key of keys) on ? next.add(key) : next.delete(key);
  return next;
}

/**
 * A table. `columns` are `{name, title, show(row), sort, number}`; `sort` makes the head a button, `order` is the
 * `name:asc` that is in force and `onOrder` changes it. `chosen` is a Set of keys where rows can be ticked.
 */
export function Table({ caption, columns, rows, keyOf, order, onOrder, chosen, onChoose, href, empty }) {
  if (rows.length === 0) return html`<${Empty}>${empty ?? "Nothing here."}<//>`;
  const [ordered, way] = (order ?? "").split(":");
  const all = chosen && rows.every((row) => chosen.has(keyOf(row)));
  const tick = (keys, on) => onChoose(ticked(chosen, keys, on));
  return html`
    <div class="table" tabindex="0" role="region" aria-label=${`Table: ${caption}`}>
      <table>
        <caption class="unseen">${caption}</caption>
        <thead>
          <tr>
            ${chosen &&
            html`<th class="tick"><input type="checkbox" aria-label="Choose all on this page" checked=${all}
              onChange=${(event) => tick(rows.map(keyOf), event.target.checked)} /></th>`}
            ${columns.map((column) => {
              const sorted = column.sort && column.name === ordered ? (way === "desc" ? "descending" : "ascending") : undefined;
              const turn = () => onOrder(`${column.name}:${sorted === "ascending" ? "desc" : "asc"}`);
              return html`<th class=${column.number ? "number" : ""} aria-sort=${sorted} scope="col">
                ${column.sort ? html`<button type="button" class="sort" onClick=${turn}>${column.title}</button>` : column.title || html`<span class="unseen">Actions</span>`}
              </th>`;
            })}
          </tr>
        </thead>
        <tbody>
          ${rows.map((row) => {
            const key = keyOf(row);
            return html`<tr key=${key} class=${chosen?.has(key) ? "chosen" : ""}>
              ${chosen &&
              html`<td class="tick"><input type="checkbox" aria-label=${`Choose ${key}`} checked=${chosen.has(key)}
                onChange=${(event) => tick([key], event.target.checked)} /></td>`}
              ${columns.map((column, at) => {
                const shown = column.show(row);
                return html`<td class=${column.number ? "number" : ""} data-title=${column.title}>
                  ${at === 0 && href ? html`<a href=${href(row)}>${shown}</a>` : shown}
                </td>`;
              })}
            </tr>`;
          })}
        </tbody>
      </table>
    </div>
  `;
}

/** Which page of a list, and how many there are in all. */
export function Pager({ page, perPage, total, onPage, what = "entries" }) {
  const last = Math.max(1, Math.ceil((total ?? 0) / perPage));
  const [typed, setTyped] = useState(String(page));
  useEffect(() => setTyped(String(page)), [page]);
  const turn = (wanted) => onPage(Math.min(last, Math.max(1, Math.floor(wanted))));
  const arrow = (sign, name, wanted) => {
    const isEnd = wanted < 1 || wanted > last || wanted === page;
    return html`<button ...${presses(() => turn(wanted), isEnd)} aria-label=${name}>${sign}</button>`;
  };
  if (!total) return null;
  return html`
    <nav class="pager" aria-label="Pages">
      <span>${number(total)} ${what}</span>
      ${arrow("«", "First page", 1)}
      ${arrow("‹", "Page before", page - 1)}
      <form onSubmit=${(event) => { event.preventDefault(); turn(Number(typed) || 1); }}>
        <label>Page <input class="tiny" inputmode="numeric" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label>
        of ${number(last)}
      </form>
      ${arrow("›", "Next page", page + 1)}
      ${arrow("»", "Last page", last)}
    </nav>
  `;
}

let fields = 0;
/** A labelled input. `children(id, describedBy)` makes it where an `<input>` with `props` will not do. */
export function Field({ label, hint, error, children, ...props }) {
  const [id] = useState(() => `field-${(fields += 1)}`);
  const said = hint || error ? `${id}-said` : undefined;
  return html`
    <div class=${error ? "field wrong" : "field"}>
      <label for=${id}>${label}</label>
      ${children ? children(id, said) : html`<input id=${id} aria-describedby=${said} aria-invalid=${error ? "true" : undefined} ...${props} />`}
      ${(error || hint) && html`<small id=${said}>${error ?? hint}</small>`}
    </div>
  `;
}

const SHORTEST_PASSWORD = 8;
/** A field for a password that is to be one. */
export const NewPassword = ({ label, hint = "", ...props }) => html`
  <${Field} label=${label} type="password" autocomplete="new-password" minlength=${SHORTEST_PASSWORD}
    hint=${`${SHORTEST_PASSWORD} characters or more. ${hint}`.trim()} ...${props} />
`;

/** A labelled choice of one of `options`: `[value, title]`, or a value that is its own title. */
export const Choice = ({ label, value = "", options, onChoice }) => html`
  <${Field} label=${label}>${(id) => html`
    <select id=${id} value=${value} onChange=${(event) => onChoice(event.target.value)}>
      ${options.map((one) => {
        const [name, title] = Array.isArray(one) ? one : [one, one];
        return html`<option key=${name} value=${name} selected=${name === value}>${title}</option>`;
      })}
    </select>`}<//>
`;

/**
 * What is done once at a time: `[isBusy, run(work)]`. Whether it is at work is known at once and not when the page is drawn next, so
 * the second of two clicks does nothing.
 */
export function useOnce() {
  const isAtWork = useRef(false);
  const [busy, setBusy] = useState(false);
  const run = async (work) => {
    if (isAtWork.current) return;
    isAtWork.current = true;
    setBusy(true);
    try {
      await work();
    } finally {
      isAtWork.current = false;
      setBusy(false);
    }
  };
  return [busy, run];
}

/** Of a button that does nothing now. It is not `disabled`: who has pressed it with the keyboard would stand nowhere. */
export const presses = (act, isOff) => ({ type: "button", "aria-disabled": isOff ? "true" : undefined, onClick: () => isOff || act() });

/**
 * A form that sends once at a time and shows what went wrong. `send()` does the work.
 */
export function Form({ send, name = "Save", children, danger, cancel, ready = true }) {
  const [error, setError] = useState();
  const [busy, run] = useOnce();
  const submit = (event) => {
    event.preventDefault();
    run(async () => {
      setError();
      try {
        await send();
      } catch (problem) {
        if (problem.name !== "AbortError") setError(problem);
      }
    });
  };
  return html`
    <form onSubmit=${submit}>
      ${children}
      ${error && html`<${Problem} error=${error} />`}
      <div class="actions">
        <button type="submit" class=${danger ? "danger" : "main"} disabled=${!ready && !busy} ...${working(busy)}>
          ${busy ? "Working…" : name}
        </button>
        ${cancel && html`<button type="button" onClick=${cancel}>Cancel</button>`}
      </div>
    </form>
  `;
}

/** Of a button that is at it already: it cannot be pressed, and whoever has pressed it with the keyboard still stands on it. */
const working = (busy) => (busy ? { "aria-disabled": "true", "aria-busy": "true" } : {});

/** A button that does something without a form, once at a time, and says what went wrong. */
export function Act({ act, children, disabled, ...props }) {
  const [busy, run] = useOnce();
  const press = () =>
    run(async () => {
      try {
        await act();
      } catch (error) {
        say(error.message, "bad");
      }
    });
  return html`<button ...${presses(press, disabled)} ...${working(busy)} ...${props}>${children}</button>`;
}

/**
 * A window over the page, closed by Escape too, if it does not stay. Who closes it is where they were before; when that is gone, at
 * the head of the page.
 */
export function Dialog({ title, close, stays, children }) {
  const dialog = useRef();
  const [before] = useState(() => document.activeElement);
  useEffect(() => {
    dialog.current.showModal();
    // While it is there nothing beside it can have the focus.
    const goBack = () => {
      if (document.activeElement !== document.body) return;
      const isThere = before?.isConnected && before !== document.body;
      (isThere ? before : document.querySelector("main h1"))?.focus({ preventScroll: true });
    };
    // Once more when it has been drawn: what has opened it may be gone by then.
    return () => {
      queueMicrotask(goBack);
      requestAnimationFrame(goBack);
    };
  }, []);
  // What had the focus may have gone, with its row.
  useEffect(() => {
    const isTop = [...document.querySelectorAll("dialog[open]")].at(-1) === dialog.current;
    if (isTop && document.activeElement === document.body) dialog.current.focus();
  });
  return html`
    <dialog ref=${dialog} tabindex="-1" aria-label=${title} onClose=${stays ? () => dialog.current?.showModal() : close} onCancel=${stays ? (event) => event.preventDefault() : undefined}>
      <h2>${title}</h2>
      ${children}
      <${Sayings} />
    </dialog>
  `;
}

/** Asks before something that cannot be taken back. */
export const Confirm = ({ title, name, danger = true, send, close, children }) => html`
  <${Dialog} title=${title} close=${close}>
    <${Form} name=${name} danger=${danger} cancel=${close} send=${async () => { await send(); close(); }}>${children}<//>
  <//>
`;

let said = [];
/** Where it is said: on the page, and in each window over it. What lies under a window is neither seen nor read out. */
const places = [];
const draw = () => places.forEach((again) => again());
/** Says what was done, for a few seconds, to whoever looks or listens. */
export function say(text, kind = "good") {
  const one = { text, kind, id: Math.random() };
  said = [...said.slice(-3), one];
  draw();
  setTimeout(() => {
    said = said.filter((other) => other !== one);
    draw();
  }, 6000);
}
export function Sayings() {
  const [, setTurn] = useState(0);
  const place = useRef();
  useEffect(() => {
    place.current = () => setTurn((before) => before + 1);
    places.push(place.current);
    draw();
    return () => {
      places.splice(places.indexOf(place.current), 1);
      draw();
    };
  }, []);
  const isTop = place.current !== undefined && places.at(-1) === place.current;
  return html`<div class="sayings" role="status" aria-live="polite">
    ${isTop && said.map((one) => html`<div key=${one.id} class=${`note ${one.kind}`}>${one.text}</div>`)}
  </div>`;
}

/** Parts of one page, of which one is shown; which, stands in the address. `tabs` are `[name, title]`. */
export const Tabs = ({ tabs, now, path, query }) => html`
  <nav class="tabs" aria-label="Parts">
    ${tabs.map(
      ([name, title]) =>
        html`<a href=${to(path, { ...query, tab: name })} aria-current=${name === now ? "page" : undefined}>${title}</a>`,
    )}
  </nav>
`;
