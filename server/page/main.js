// The page: who is here, the frame, and which page stands in the address.

import { html, render, useEffect, useRef, useState } from "./html.js";
import { get, isOut, onConnection, remove, tell } from "./api.js";
import { go, to, useRoute } from "./route.js";
import { Act, Dialog, Page, Problem, Sayings, say, useLoad } from "./ui.js";
import { SEE_AUDIT, SEE_DEVICES, SEE_RELEASES, SEE_ROLLOUTS, know, may, maySomewhere } from "./permit.js";
import { number } from "./words.js";
import { Login, LoginForm, Start } from "./pages/gate.js";
import { Dashboard } from "./pages/dashboard.js";

/** Pages that not everybody opens are loaded when somebody does. */
const LATER = {
  devices: () => import("./pages/devices.js"),
  device: () => import("./pages/device.js"),
  releases: () => import("./pages/releases.js"),
  rollouts: () => import("./pages/rollouts.js"),
  rollout: () => import("./pages/rollout.js"),
  new: () => import("./pages/new_rollout.js"),
  audit: () => import("./pages/audit.js"),
  settings: () => import("./pages/settings.js"),
};

/** The module for a path, and what it exports under that name. */
function pageOf(path) {
  const [first, second] = path;
  if (first === "devices") return second ? ["device", "Device"] : ["devices", "Devices"];
  if (first === "releases") return ["releases", second ? "Release" : "Releases"];
  if (first === "rollouts") {
    if (second === "new") return ["new", "NewRollout"];
    return second ? ["rollout", "Rollout"] : ["rollouts", "Rollouts"];
  }
  if (first === "audit") return ["audit", "Audit"];
  if (first === "settings") return ["settings", "Settings"];
  return null;
}

function Later({ route, me }) {
  const [found, setFound] = useState({});
  const which = pageOf(route.path);
  const name = which?.join(" ");
  useEffect(() => {
    if (!which) return;
    const [module, exported] = which;
    let isGone = false;
    // One that comes when somebody has gone on to another is not shown in its place.
    const show = (what) => isGone || setFound({ name, ...what });
    LATER[module]().then(
      (loaded) => show({ page: loaded[exported] }),
      () => show({ error: new Error("This page could not be loaded.") }),
    );
    return () => {
      isGone = true;
    };
  }, [name]);
  if (!which) return html`<${Page} title="There is no such page"><p><a href="#/">To the overview</a></p><//>`;
  if (found.name !== name) return html`<p class="quiet" role="status">Loading…</p>`;
  if (found.error) return html`<${Problem} error=${found.error} again=${() => location.reload()} />`;
  return html`<${found.page} key=${route.path.join("/")} route=${route} me=${me} />`;
}

/** What is in the menu, and for whom. */
const PLACES = [
  ["", "Overview", () => true],
  ["devices", "Devices", () => maySomewhere(SEE_DEVICES)],
  ["releases", "Releases", () => may(SEE_RELEASES)],
  ["rollouts", "Roll-outs", () => may(SEE_ROLLOUTS)],
  ["audit", "Audit log", () => may(SEE_AUDIT)],
  ["settings", "Settings", () => true],
];

function Frame({ me, route, loggedOut }) {
  const [connection, setConnection] = useState("found");
  useEffect(() => onConnection((event) => (event === "lost" || event === "found") && setConnection(event)), []);
  const pending = useLoad(
    async (signal) => (may(SEE_DEVICES) ? (await get("v2/devauth/devices/count", { status: "pending" }, { signal })).data.count : 0),
    [],
    { every: 15000 },
  );
  const waiting = pending.data ?? 0;
  const first = route.path[0] ?? "";
  const logOut = async () => {
    try {
      await remove("v1/useradm/auth/session");
      loggedOut();
    } catch (error) {
      // The session is still there, and whoever wanted to go has to know.
      say(`You are not logged out: ${error.message}`, "bad");
    }
  };
  return html`
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); document.querySelector("main h1")?.focus(); }}>To the content</a>
    <div class="frame">
      <header class="side">
        <a class="brand" href="#/">rust-ota</a>
        <nav aria-label="Places">
          ${PLACES.filter(([, , isFor]) => isFor()).map(
            ([path, name]) => html`
              <a href=${to(path ? [path] : [])} aria-current=${first === path ? "page" : undefined}>
                ${name}
                ${path === "devices" && waiting > 0 && html`<span class="count" title="wait for a decision">${number(waiting)}</span>`}
              </a>
            `,
          )}
        </nav>
        <div class="who">
          ${me.email ?? me.id} <${Act} class="plain" act=${logOut}>Log out<//>
        </div>
      </header>
      <div>
        ${connection === "lost" &&
        html`<div class="note wait lost" role="alert">The server does not answer. What is shown may be old; it is asked again by itself.</div>`}
        <main id="content">
          ${first === "" ? html`<${Dashboard} />` : html`<${Later} route=${route} me=${me} />`}
        </main>
      </div>
    </div>
  `;
}

/**
 * Whoever's login ends while they work has to log in again. The page goes on where it was, with what was typed; until then it is
 * not seen. Somebody else who logs in begins anew.
 */
function Kept({ isOut, me, entered, children }) {
  return html`
    <div hidden=${isOut}>${children}</div>
    ${isOut &&
    html`<${Dialog} title="Log in again" stays>
      <p>Your login has ended: it was too old, or you or somebody else has ended it. The page goes on where you were, with what you have typed.</p>
      <${LoginForm} email=${me.email} entered=${entered} />
    <//>`}
  `;
}

function Whole() {
  const route = useRoute();
  const [me, setMe] = useState();
  const [state, setState] = useState({});
  const asking = useRef();
  // Of several answers that nobody is in, one is asked about.
  const ask = () => (asking.current ??= find().finally(() => (asking.current = undefined)));
  async function find() {
    try {
      const answer = await get("v1/useradm/users/me");
      know(answer.data);
      setMe(answer.data);
      tell("logged-in");
      setState({});
    } catch (error) {
      if (error.status !== 401) return setState({ error });
      const known = await get("v1/useradm/auth/state").catch(() => ({ data: {} }));
      const firstUser = known.data?.first_user === true;
      if (firstUser) setMe(undefined);
      setState({ out: true, firstUser });
    }
  }
  useEffect(() => {
    ask();
    return onConnection((event) => {
      if (event === "logged-out") ask();
    });
  }, []);
  const entered = () => {
    if (route.path[0] === "start") go("#/", { replace: true });
    ask();
  };
  const left = () => {
    setMe(undefined);
    ask();
  };
  let content;
  if (me) content = html`<${Kept} isOut=${isOut()} me=${me} entered=${entered}><${Frame} key=${me.id} me=${me} route=${route} loggedOut=${left} /><//>`;
  else if (state.error) content = html`<main class="gate"><h1>rust-ota</h1><${Problem} error=${state.error} again=${ask} /></main>`;
  else if (state.out && state.firstUser) content = html`<${Start} token=${route.path[0] === "start" ? route.path[1] : undefined} entered=${entered} />`;
  else if (state.out) content = html`<${Login} entered=${entered} />`;
  else content = html`<main class="gate"><p class="quiet" role="status">Loading…</p></main>`;
  return html`${content}<${Sayings} />`;
}

render(html`<${Whole} />`, document.getElementById("page"));
