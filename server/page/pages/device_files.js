// Files to and from a device, and how its ports are reached.

import { html, useEffect, useRef, useState } from "../html.js";
import { load, segment, send } from "../api.js";
import { Card, Field, Form, say } from "../ui.js";
import { bytes } from "../words.js";
import { Connected } from "./device_connected.js";
import { keep } from "./device_export.js";

/** Where something is that goes on: how many bytes, of how many when that is known. */
const Progress = ({ at }) =>
  at &&
  html`<p role="status">${bytes(at.done)}${at.all ? ` of ${bytes(at.all)}` : ""}</p>
    <progress max=${at.all || 1} value=${at.all ? at.done : undefined} aria-label="How much has gone"></progress>`;

export function Files({ id, connection }) {
  return html`
    <${Connected} connection=${connection}>
      <div class="cards">
        <${Download} id=${id} />
        <${Upload} id=${id} />
      </div>
      <p class="quiet">What of its files the device gives and takes is set on it, under <code>FileTransfer</code> and <code>Limits</code> in <code>mender-connect.conf</code>. The audit log says who has moved which.</p>
    <//>
  `;
}

/** Something that can be ended, and ends when one leaves. */
function useEnd() {
  const ended = useRef();
  useEffect(() => () => ended.current?.abort(), []);
  return {
    begin: () => {
      ended.current = new AbortController();
      return ended.current.signal;
    },
    stop: () => ended.current?.abort(),
  };
}

function Download({ id }) {
  const [path, setPath] = useState("");
  const [at, setAt] = useState();
  const end = useEnd();
  const begin = async () => {
    try {
      const { blob, headers } = await load(`v1/deviceconnect/devices/${segment(id)}/download`, { path: path.trim() }, {
        signal: end.begin(),
        progress: (done, header) => setAt({ done, all: Number(header.get("X-MEN-File-Size")) || undefined }),
      });
      keep(blob, path.trim().split("/").pop() || "file");
      say(`${path.trim()} is here: ${bytes(blob.size)}, mode ${headers.get("X-MEN-File-Mode") ?? "not said"}.`);
    } finally {
      setAt(undefined);
    }
  };
  return html`
    <${Card} title="From the device">
      <${Form} name="Download" send=${begin} cancel=${at && end.stop}>
        <${Field} label="Path on the device" placeholder="/etc/os-release" required pattern="/.*" title="A path that begins with /" maxlength="4096" value=${path} onInput=${(event) => setPath(event.target.value)} />
        <${Progress} at=${at} />
      <//>
    <//>
  `;
}

function Upload({ id }) {
  const [file, setFile] = useState();
  const [path, setPath] = useState("");
  const [mode, setMode] = useState("");
  const [owner, setOwner] = useState({ uid: "", gid: "" });
  const [at, setAt] = useState();
  const end = useEnd();
  const begin = async () => {
    const form = new FormData();
    form.append("path", path.trim());
    for (const [name, value] of Object.entries({ mode, ...owner })) if (value.trim()) form.append(name, value.trim());
    // The server sends it on as it comes, so all else has to be there before.
    form.append("file", file);
    try {
      await send("PUT", `v1/deviceconnect/devices/${segment(id)}/upload`, form, (done, all) => setAt({ done, all }), end.begin());
      say(`${path.trim()} is on the device.`);
    } finally {
      setAt(undefined);
    }
  };
  return html`
    <${Card} title="To the device">
      <${Form} name="Upload" send=${begin} cancel=${at && end.stop} ready=${Boolean(file)}>
        <${Field} label="File" type="file" required onChange=${(event) => {
          const [picked] = event.target.files;
          setFile(picked);
          if (picked && !path) setPath(`/tmp/${picked.name}`);
        }} />
        <${Field} label="Path on the device" required pattern="/.*" title="A path that begins with /" maxlength="4096" value=${path} onInput=${(event) => setPath(event.target.value)} />
        <${Field} label="Mode" hint="octal, such as 644; empty: as the device has it" pattern="[0-7]{1,4}" value=${mode} onInput=${(event) => setMode(event.target.value)} />
        <div class="row">
          <${Field} label="User id" inputmode="numeric" pattern="[0-9]*" value=${owner.uid} onInput=${(event) => setOwner({ ...owner, uid: event.target.value })} />
          <${Field} label="Group id" inputmode="numeric" pattern="[0-9]*" value=${owner.gid} onInput=${(event) => setOwner({ ...owner, gid: event.target.value })} />
        </div>
        <${Progress} at=${at} />
      <//>
    <//>
  `;
}

export const Ports = ({ id }) => html`
  <${Card} title="Ports of the device">
    <p>A page in a browser cannot open a port on your computer; a program can. With <code>mender-cli</code>, port 8080 of the device is reached on
      port 8000 of your computer while this runs:</p>
    <pre tabindex="0">${`mender-cli --server ${location.origin} login
mender-cli --server ${location.origin} port-forward ${id} 8000:8080`}</pre>
    <p>Its login asks for your address and your password. The device has to be connected, and what it lets through is set on it, under
      <code>PortForward</code> in <code>mender-connect.conf</code>.</p>
  <//>
`;
