// Releases: what can be installed. A release is all artifacts of one name.

import { html, useEffect, useState } from "../html.js";
import { get, patch, put, remove, segment, unlessChanged } from "../api.js";
import { Card, Choice, Confirm, Dialog, Empty, Field, Form, Loaded, Note, Page, Pager, Problem, Status, Table, Time, say, useLoad, usePages } from "../ui.js";
import { bytes, counted, number, short } from "../words.js";
import { go, pageIn, to, useQuery } from "../route.js";
import { DEPLOY, HAVE_FILES, MANAGE_RELEASES, UPLOAD, may, maySomewhere } from "../permit.js";
import { ReleaseField, typesOf } from "./choose.js";
import { Search } from "./later.js";
import { Compared, Inside, Kind, Signed, isDelta, typeOf } from "./artifact.js";
import { Uploads } from "./uploads.js";

const PER_PAGE = 20;
/** Jobs of a release that are listed: each pair of images has one. */
const JOBS = 200;
const RELEASES = "v2/deployments/deployments/releases";

export function Releases({ route }) {
  const [query, setQuery] = useQuery(route);
  const [chosen, setChosen] = useState(new Set());
  const [deleting, setDeleting] = useState(false);
  const page = pageIn(query);
  const turn = (next) => setQuery({ page: next });
  const order = query.sort ?? "modified:desc";
  const list = usePages(
    (range, signal) => get(RELEASES, { name: query.name, tag: query.tag, update_type: query.type, sort: order, ...range }, { signal }),
    [query.name, query.tag, query.type, order],
    { page, perPage: PER_PAGE, turn, every: 30000 },
  );
  const kinds = useLoad(async (signal) => {
    const [tags, types] = await Promise.all(["tags", "types"].map((what) => get(`v2/deployments/releases/all/${what}`, undefined, { signal })));
    return { tags: tags.data, types: types.data };
  }, []);
  const filter = (members) => setQuery({ ...members, page: undefined });
  const isFiltered = query.name || query.tag || query.type;
  const pair = [...chosen];
  return html`
    <${Page} title="Releases" actions=${maySomewhere(DEPLOY) && html`<a class="button main" href="#/rollouts/new">New roll-out</a>`}>
      ${may(UPLOAD) && html`<${Uploads} there=${() => { list.reload(); kinds.reload(); }} />`}
      <div class="filters">
        <${Search} label="Name" text=${query.name} onText=${(name) => filter({ name })} />
        <${Choice} label="Tag" value=${query.tag} options=${anyOf(kinds.data?.tags, query.tag)} onChoice=${(tag) => filter({ tag })} />
        <${Choice} label="Type" value=${query.type} options=${anyOf(kinds.data?.types, query.type)} onChoice=${(type) => filter({ type })} />
        ${chosen.size > 0 && html`<div class="actions">
          ${pair.length === 2 && html`<a class="button" href=${to(["releases", pair[0]], { with: pair[1] })}>Compare the two</a>`}
          ${may(MANAGE_RELEASES) && html`<button type="button" class="danger" onClick=${() => setDeleting(true)}>Delete ${counted(chosen.size, "release")}</button>`}
        </div>`}
      </div>
      <${Loaded} of=${list}>${(found) => html`
        <${Table} caption="Releases" rows=${found.data} keyOf=${(row) => row.name} href=${(row) => to(["releases", row.name])}
          order=${order} onOrder=${(sort) => setQuery({ sort })} chosen=${chosen} onChoose=${setChosen}
          empty=${isFiltered ? "No release is like that." : may(UPLOAD) ? "There is no release yet: upload an artifact above, or with “rust-ota-server upload FILE”." : "There is no release yet, and your roles do not let you upload one."}
          columns=${[
            { name: "name", title: "Name", sort: true, show: (row) => row.name },
            { name: "artifacts_count", title: "Artifacts", sort: true, number: true, show: (row) => row.artifacts_count },
            { title: "Device types", show: (row) => typesOf(row).join(", ") },
            { title: "Payload types", show: (row) => payloadsOf(row).join(", ") },
            { title: "Size", number: true, show: (row) => sizesOf(row) },
            { name: "tags", title: "Tags", sort: true, show: (row) => html`<${Tags} of=${row.tags} />` },
            { name: "modified", title: "Changed", sort: true, show: (row) => html`<${Time} at=${row.modified} />` },
          ]} />
        <${Pager} page=${page} perPage=${PER_PAGE} total=${found.total} what=${found.total === 1 ? "release" : "releases"} onPage=${turn} />
      `}<//>
      ${deleting && html`<${Delete} names=${pair} close=${() => setDeleting(false)} gone=${() => { setChosen(new Set()); list.reload(); }} />`}
    <//>
  `;
}

const payloadsOf = (release) => [...new Set(release.artifacts.map((artifact) => typeOf(artifact) ?? "none"))].sort();

function sizesOf(release) {
  const sizes = release.artifacts.map((artifact) => artifact.size);
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  return least === most ? bytes(least) : `${bytes(least)} to ${bytes(most)}`;
}

const Tags = ({ of }) => of.map((tag) => html`<span key=${tag} class="tag">${tag}</span> `);

/** What there is to choose from; also what the address asks for and nothing has. */
const anyOf = (known = [], asked) => [["", "any"], ...new Set(asked ? [...known, asked] : known)];

/** Deletes releases, or says which roll-outs need them. */
function Delete({ names, close, gone }) {
  const [users, setUsers] = useState([]);
  const send = async () => {
    try {
      await remove(RELEASES, { name: names });
    } catch (error) {
      const ids = error.body?.active_deployments ?? [];
      setUsers(ids);
      if (ids.length) throw new Error("It cannot be deleted while roll-outs that run need it. End them first, or let them end.");
      throw error;
    }
    say(names.length === 1 ? `Release ${names[0]} is deleted.` : `${names.length} releases are deleted.`);
    gone();
  };
  return html`
    <${Confirm} title=${names.length === 1 ? `Delete release ${names[0]}?` : `Delete ${names.length} releases?`} name="Delete" send=${send} close=${close}>
      <p>All artifacts of ${names.length === 1 ? "it" : "them"} go, with notes and tags. Devices keep what they have installed. This cannot be taken back.</p>
      ${names.length > 1 && html`<ul>${names.map((name) => html`<li key=${name}>${name}</li>`)}</ul>`}
      ${users.length > 0 && html`<${Users} ids=${users} />`}
    <//>
  `;
}

/** Roll-outs by their names; of an id that cannot be read, the id. */
function Users({ ids }) {
  const names = useLoad((signal) => get("v2/deployments/deployments", { id: ids.slice(0, 20), per_page: 20 }, { signal }), [ids.join()]);
  const nameOf = (id) => names.data?.data.find((one) => one.id === id)?.name ?? `roll-out ${short(id)}`;
  return html`<${Note} kind="bad"><span>Needed by: ${ids.slice(0, 20).map((id, at) => html`${at > 0 && ", "}<a href=${to(["rollouts", id])}>${nameOf(id)}</a>`)}</span><//>`;
}

export function Release({ route }) {
  const [query, setQuery] = useQuery(route);
  const name = route.path[1];
  const release = useLoad((signal) => get(`${RELEASES}/${segment(name)}`, undefined, { signal }).then((answer) => answer.data), [name], { every: 30000 });
  const jobs = useLoad((signal) => get(`${RELEASES}/delta/jobs`, { to_version: name, per_page: JOBS }, { signal }), [name], { every: 10000 });
  const [deleting, setDeleting] = useState(false);
  const isGone = release.error?.status === 404;
  return html`
    <${Page} title=${name} back=${{ href: "#/releases", name: "All releases" }}
      actions=${!isGone && html`
        ${maySomewhere(DEPLOY) && html`<a class="button main" href=${to(["rollouts", "new"], { release: name })}>Roll out</a>`}
        <a class="button" href=${to(["rollouts"], { search: name })}>Its roll-outs</a>
        ${may(MANAGE_RELEASES) && html`<button type="button" class="danger" onClick=${() => setDeleting(true)}>Delete</button>`}
      `}>
      ${isGone
        ? html`<${Empty}>There is no release with this name: it was deleted, or nothing of it was uploaded. <a href="#/releases">To the releases</a><//>`
        : html`<${Loaded} of=${release}>${(data) => html`
            <${Artifacts} release=${data} jobs=${jobs.data?.data ?? []} reload=${release.reload} query=${query} setQuery=${setQuery} />
            <div class="cards">
              <${Notes} key=${`notes ${data.name}`} release=${data} reload=${release.reload} />
              <${TagsCard} key=${`tags ${data.name}`} release=${data} reload=${release.reload} />
            </div>
            <${Jobs} jobs=${jobs} />
            <${Compare} release=${data} other=${query.with ?? ""} query=${query} setQuery=${setQuery} />
          `}<//>`}
      ${deleting && html`<${Delete} names=${[name]} close=${() => setDeleting(false)} gone=${() => go("#/releases")} />`}
    <//>
  `;
}

function Artifacts({ release, jobs, reload, query, setQuery }) {
  const [shown, setShown] = useState();
  const all = [...release.artifacts].sort((a, b) => b.size - a.size);
  const page = Math.min(pageIn(query), Math.max(1, Math.ceil(all.length / PER_PAGE)));
  const artifact = all.find((one) => one.id === shown);
  return html`
    <${Card} title=${`Artifacts (${all.length})`}>
      <${Table} caption="Artifacts of the release" rows=${all.slice((page - 1) * PER_PAGE, page * PER_PAGE)} keyOf=${(row) => row.id}
        columns=${[
          { title: "Device types", show: (row) => row.device_types_compatible.join(", ") },
          { title: "Kind", show: (row) => html`<${Kind} artifact=${row} others=${all} jobs=${jobs} />` },
          { title: "Payload type", show: (row) => typeOf(row) ?? "none" },
          { title: "Size", number: true, show: (row) => bytes(row.size) },
          { title: "Signed", show: (row) => html`<${Signed} artifact=${row} />` },
          { title: "Description", show: (row) => row.description || html`<span class="quiet">none</span>` },
          { title: "Here since", show: (row) => html`<${Time} at=${row.modified} />` },
          { title: "More", show: (row) => html`<button type="button" onClick=${() => setShown(row.id)}>What is inside<span class="unseen"> the artifact for ${row.device_types_compatible.join(", ")}, ${bytes(row.size)}</span></button>` },
        ]} />
      ${all.length > PER_PAGE && html`<${Pager} page=${page} perPage=${PER_PAGE} total=${all.length} what="artifacts" onPage=${(next) => setQuery({ page: next })} />`}
      ${artifact && html`<${ArtifactDialog} key=${artifact.id} artifact=${artifact} tags=${release.tags} others=${all} jobs=${jobs} close=${() => setShown(undefined)} reload=${reload} />`}
    <//>
  `;
}

function ArtifactDialog({ artifact, tags, others, jobs, close, reload }) {
  const [began, setBegan] = useState(artifact.description);
  const [description, setDescription] = useState(artifact.description);
  const [deleting, setDeleting] = useState(false);
  const path = `v1/deployments/artifacts/${segment(artifact.id)}`;
  const save = async () => {
    await unlessChanged(path, {
      began,
      wanted: description,
      of: (one) => one.description,
      words: "Somebody else has changed the description since you began, so yours is not saved. Close this, look at it, and begin again.",
      reload,
      send: (etag) => put(path, { description }, { etag }),
    });
    setBegan(description);
    say("The description is saved.");
    reload();
  };
  const download = async () => {
    // The link is the server's own and works for a short time.
    const link = await get(`${path}/download`);
    location.assign(link.data.uri);
  };
  const removeIt = async () => {
    await remove(path).catch((error) => {
      throw error.status === 409 ? new Error("A roll-out that runs needs it. End it first, or let it end.") : error;
    });
    say("The artifact is deleted.");
    if (others.length === 1) go("#/releases");
    else reload();
  };
  return html`
    <${Dialog} title=${`Artifact of ${artifact.name}`} close=${close}>
      <${Inside} artifact=${artifact} others=${others} jobs=${jobs} />
      ${may(MANAGE_RELEASES, { tags }) && html`<${Form} name="Save the description" send=${save} ready=${description !== began}>
        <${Field} label="Description" maxlength="1000" value=${description} onInput=${(event) => setDescription(event.target.value)} />
      <//>`}
      <div class="actions ends">
        ${may(HAVE_FILES, { tags }) && html`<${Form} name="Download" send=${download} />`}
        ${may(MANAGE_RELEASES, { tags }) && html`<button type="button" class="danger" onClick=${() => setDeleting(true)}>Delete the artifact</button>`}
        <button type="button" onClick=${close}>Close</button>
      </div>
      ${deleting && html`<${Confirm} title="Delete this artifact?" name="Delete" send=${removeIt} close=${() => setDeleting(false)}>
        <p>Devices keep what they have installed. This cannot be taken back.${others.length === 1 && " It is the last one of its release, which goes with it."}</p>
      <//>`}
    <//>
  `;
}

const MOST_NOTES = 1024;

/** What somebody else writes meanwhile is shown when one has written nothing, and said when one wants to save. */
function Notes({ release, reload }) {
  const [began, setBegan] = useState(release.notes);
  const [notes, setNotes] = useState(release.notes);
  const [others, setOthers] = useState();
  const path = `${RELEASES}/${segment(release.name)}`;
  useEffect(() => {
    if (notes !== began) return;
    setBegan(release.notes);
    setNotes(release.notes);
  }, [release.notes]);
  const save = async () => {
    try {
      await unlessChanged(path, {
        began,
        wanted: notes,
        of: (one) => one.notes,
        words: "Somebody else has changed the notes since you began, so yours are not saved. They stand below; save again to put yours in their place.",
        send: (etag) => patch(path, { notes }, { etag }),
      });
    } catch (error) {
      // What was read is what is decided about next.
      if (error.status === 412) {
        setBegan(error.body.notes);
        setOthers(error.body.notes);
      }
      throw error;
    }
    setBegan(notes);
    setOthers(undefined);
    say("The notes are saved.");
    reload();
  };
  if (!may(MANAGE_RELEASES, release)) {
    return html`<${Card} title="Notes">${release.notes ? html`<p class="written">${release.notes}</p>` : html`<p class="quiet">None.</p>`}<//>`;
  }
  return html`
    <${Card} title="Notes">
      <${Form} name="Save the notes" send=${save} ready=${notes !== began}>
        <${Field} label="What people should know about it" hint=${`${notes.length} of ${MOST_NOTES} characters`}>
          ${(id, said) => html`<textarea id=${id} aria-describedby=${said} rows="5" maxlength=${MOST_NOTES} value=${notes} onInput=${(event) => setNotes(event.target.value)}></textarea>`}
        <//>
      <//>
      ${others !== undefined && html`<h3>By somebody else</h3><p class="written">${others || "Nothing."}</p>`}
    <//>
  `;
}

function TagsCard({ release, reload }) {
  const [typed, setTyped] = useState("");
  const [error, setError] = useState();
  const path = `${RELEASES}/${segment(release.name)}`;
  // Made of the tags of now: those that somebody else has added meanwhile stay.
  const save = async (change) => {
    const { data, etag } = await get(path);
    await put(`${path}/tags`, change(data.tags), { etag });
    setError(undefined);
    reload();
  };
  const drop = (tag) => save((tags) => tags.filter((other) => other !== tag)).catch(setError);
  const add = async () => {
    await save((tags) => [...new Set([...tags, ...typed.split(/[\s,]+/).filter(Boolean)])]);
    setTyped("");
  };
  const mayChange = may(MANAGE_RELEASES, release);
  return html`
    <${Card} title="Tags">
      ${release.tags.length === 0 && html`<p class="quiet">None yet.</p>`}
      <ul class="tags">${release.tags.map((tag) => html`<li key=${tag} class="tag">${tag} ${mayChange && html`<button type="button" class="plain" aria-label=${`Take the tag ${tag} away`} onClick=${() => drop(tag)}>×</button>`}</li>`)}</ul>
      ${error && html`<${Problem} error=${error} />`}
      ${mayChange &&
      html`<${Form} name="Add" send=${add} ready=${typed.trim() !== ""}>
        <${Field} label="New tag" maxlength="64" value=${typed} onInput=${(event) => setTyped(event.target.value)} hint="Letters, digits, “_”, “.” and “-”; several with blanks between" />
      <//>`}
    <//>
  `;
}

/** Deltas that the server makes for this release. */
function Jobs({ jobs }) {
  if (jobs.data?.total === 0) return null;
  return html`
    <${Card} title="Deltas that the server makes">
      <${Loaded} of=${jobs}>${({ data, total }) => html`<${JobTable} rows=${data} all=${total} />`}<//>
    <//>
  `;
}

const JOB_STATES = { pending: ["pending", "waits"], queued: ["inprogress", "is made"], success: ["success", "is there"], failed: ["failure", "failed"] };

/** Jobs that are listed, of how many there are in all. */
export const JobTable = ({ rows, all, empty }) => html`
  <${Table} caption="Deltas that the server makes" rows=${rows} keyOf=${(row) => row.id} empty=${empty}
    columns=${[
      { title: "From", show: (row) => row.from_version },
      { title: "To", show: (row) => row.to_version },
      { title: "Device types", show: (row) => row.devices_types_compatible.join(", ") },
      { title: "State", show: (row) => { const [look, words] = JOB_STATES[row.status] ?? ["", row.status]; return html`<${Status} value=${look}>${words}<//>`; } },
      { title: "Size", number: true, show: (row) => (row.rust_ota.bytes ? html`${bytes(row.rust_ota.bytes)} of ${bytes(row.rust_ota.full_bytes)}` : "–") },
      { title: "Devices", number: true, show: (row) => row.rust_ota.devices },
      { title: "Why", show: (row) => row.rust_ota.reason ?? "" },
      { title: "Made", show: (row) => html`<${Time} at=${row.finished ?? row.rust_ota.created} />` },
    ]} />
  ${rows.length < all && html`<p class="quiet">The newest ${rows.length} of ${number(all)}.</p>`}
`;

/** Two artifacts side by side: of this release, or of another. */
function Compare({ release, other, query, setQuery }) {
  const [typed, setTyped] = useState(other);
  const isOther = other !== "" && other !== release.name;
  const loaded = useLoad((signal) => (isOther ? get(`${RELEASES}/${segment(other)}`, undefined, { signal }).then((answer) => answer.data) : null), [other]);
  const second = isOther ? loaded.data : release;
  const rights = second?.artifacts ?? [];
  const left = release.artifacts.find((one) => one.id === query.left) ?? best(release.artifacts);
  const others = rights.filter((one) => one.id !== left.id);
  const right = rights.find((one) => one.id === query.right) ?? best(others.filter((one) => fits(one, left))) ?? best(others);
  if (other === "" && query.compare !== "yes") {
    return html`<p><button type="button" onClick=${() => setQuery({ compare: "yes" })}>Compare artifacts side by side</button></p>`;
  }
  return html`
    <${Card} title="Compare">
      <div class="filters">
        <${Which} label=${`Artifact of ${release.name}`} of=${release.artifacts} value=${left.id} onArtifact=${(id) => setQuery({ left: id })} />
        <${ReleaseField} label="With the release" value=${typed} onRelease=${(name) => { setTyped(name); if (name === "") setQuery({ with: undefined, right: undefined }); }} />
        <button type="button" onClick=${() => setQuery({ with: typed, right: undefined })}>Show</button>
        ${right && html`<${Which} label=${`Artifact of ${second.name}`} of=${rights} value=${right.id} onArtifact=${(id) => setQuery({ right: id })} />`}
      </div>
      ${loaded.error && (loaded.error.status === 404 ? html`<${Note} kind="bad">There is no release ${other}.<//>` : html`<${Problem} error=${loaded.error} again=${loaded.reload} />`)}
      ${right && left && right.id !== left.id && html`<${Compared} left=${left} right=${right} />`}
      ${second && !right && html`<p class="quiet">There is no other artifact to compare with: choose another release.</p>`}
    <//>
  `;
}
/** What people mean by a release is its full image, if there is one. */
const best = (artifacts) => artifacts.find((one) => !isDelta(one)) ?? artifacts[0];
const fits = (one, other) => one.device_types_compatible.some((type) => other.device_types_compatible.includes(type));

const Which = ({ label, of, value, onArtifact }) => html`
  <${Choice} label=${label} value=${value} onChoice=${onArtifact}
    options=${of.map((one) => [one.id, `${one.device_types_compatible.join(", ")}, ${typeOf(one) ?? "none"}, ${bytes(one.size)}, ${short(one.id)}`])} />
`;
