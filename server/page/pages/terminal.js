// A shell on the device: the frames of `mender-connect` over a WebSocket of the server, and a screen for what they print.
//
// A frame is `{hdr: {proto, typ, sid, props}, body}`; the server sets the session and the user. Of the shell's messages: `new`
// asks for one and is its answer, `shell` carries what is typed and printed, `resize` says how large the screen is, `ping` has to
// be answered or the device ends the session, and `stop` ends it.

import { html, useEffect, useRef, useState } from "../html.js";
import { segment, socket } from "../api.js";
import { Card, Note, Status } from "../ui.js";
import { decode, encode } from "../msgpack.js";
import { Connected } from "./device_connected.js";

const SHELL = 1;
/** The property `status` of an answer that says why there is no shell. */
const FAILED = 2;
/** What is typed goes in such pieces: a frame of a device has at most 8 KiB. */
const TYPED_BYTES = 4096;
/** What was printed and is not on the screen yet. A WebSocket cannot be told to wait. */
const PRINTED_BYTES = 16 << 20;
/** What was typed and has not gone yet. */
const WAITING_BYTES = 1 << 20;
const SCROLLBACK_LINES = 5000;
/** The bar beside the lines. */
const BAR_PIXELS = 16;
/** While a window is drawn to another size, the device is told once. */
const RESIZE_MILLISECONDS = 100;

const NOTHING = new Uint8Array();
const COLOURS = { background: "#11161d", foreground: "#e6ebf2", cursor: "#82b1ff", selectionBackground: "#34507c" };

let style;
/** The style of the screen, once. */
function styled() {
  style ??= new Promise((resolve, reject) => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL("../lib/xterm.css", import.meta.url).href;
    link.onload = resolve;
    link.onerror = () => {
      style = undefined;
      link.remove();
      reject(new Error("The terminal's style could not be loaded."));
    };
    document.head.append(link);
  });
  return style;
}

const shown = (bytes) => (bytes instanceof Uint8Array ? new TextDecoder().decode(bytes).trim() : "");

/**
 * The connection to a shell. `on` hears `opened()`, `printed(bytes)`, and once, at the end, `ended(words)`.
 */
function connect(id, size, on) {
  const line = new WebSocket(socket(`v1/deviceconnect/devices/${segment(id)}/connect`));
  line.binaryType = "arraybuffer";
  let isOver = false;
  let hasOpened = false;
  const say = (typ, props, body = NOTHING) => {
    if (line.readyState !== WebSocket.OPEN) return;
    line.send(encode({ hdr: { proto: SHELL, typ, sid: "", props }, body }));
  };
  const finish = (words) => {
    if (isOver) return;
    isOver = true;
    say("stop", {});
    line.close();
    on.ended(words);
  };
  line.onopen = () => say("new", size());
  line.onmessage = ({ data }) => {
    if (isOver) return;
    let frame;
    try {
      frame = decode(new Uint8Array(data));
    } catch (error) {
      return finish(`The device has sent what is no frame: ${error.message}.`);
    }
    const { proto, typ, props } = frame?.hdr ?? {};
    if (proto !== SHELL) return;
    if (typ === "new" && props?.status === FAILED) finish(`The device opens no shell: ${shown(frame.body)}`);
    else if (typ === "new") {
      hasOpened = true;
      on.opened();
    } else if (typ === "shell" && frame.body instanceof Uint8Array) on.printed(frame.body);
    else if (typ === "ping") say("pong", {});
    else if (typ === "stop") finish("The shell has ended.");
  };
  line.onclose = ({ reason }) => {
    // A browser does not tell a page why a WebSocket was refused.
    finish(reason ? `The connection has ended: ${reason}.` : hasOpened ? "The connection has ended." : "There is no connection: the device went, too many people work on it, or your roles do not allow it.");
  };
  return {
    type: (bytes) => {
      if (line.bufferedAmount > WAITING_BYTES) return finish("The device does not take what is typed.");
      for (let from = 0; from < bytes.length; from += TYPED_BYTES) say("shell", {}, bytes.subarray(from, from + TYPED_BYTES));
    },
    resize: () => say("resize", size()),
    end: finish,
  };
}

/** A screen in `place` with a shell behind it. */
async function open(id, place, { leave, tell, readAloud }) {
  const [{ Terminal: Screen }] = await Promise.all([import("../lib/xterm.js"), styled()]);
  const screen = new Screen({
    fontFamily: "ui-monospace, monospace",
    fontSize: 14,
    scrollback: SCROLLBACK_LINES,
    minimumContrastRatio: 4.5,
    screenReaderMode: readAloud,
    theme: COLOURS,
    // What a device prints may say that it is a link: nothing follows it.
    linkHandler: { activate: () => {} },
  });
  screen.open(place);
  const fit = () => {
    const cells = place.querySelector(".xterm-screen").getBoundingClientRect();
    if (!cells.width || !cells.height) return;
    const columns = Math.floor(((place.clientWidth - BAR_PIXELS) * screen.cols) / cells.width);
    const rows = Math.floor((place.clientHeight * screen.rows) / cells.height);
    screen.resize(Math.max(20, columns), Math.max(5, rows));
  };
  fit();
  let unprinted = 0;
  const line = connect(id, () => ({ terminal_width: screen.cols, terminal_height: screen.rows }), {
    opened: () => {
      tell({ phase: "open" });
      screen.focus();
    },
    printed: (bytes) => {
      unprinted += bytes.length;
      if (unprinted > PRINTED_BYTES) return line.end("The device prints faster than this page can show it.");
      screen.write(bytes, () => {
        unprinted -= bytes.length;
      });
    },
    ended: (words) => {
      screen.options.disableStdin = true;
      tell({ phase: "ended", words });
    },
  });
  const typed = new TextEncoder();
  screen.onData((text) => line.type(typed.encode(text)));
  screen.onBinary((text) => line.type(Uint8Array.from(text, (char) => char.charCodeAt(0))));
  let timer;
  screen.onResize(() => {
    clearTimeout(timer);
    timer = setTimeout(line.resize, RESIZE_MILLISECONDS);
  });
  // The shell needs the tabulator key, so another one leads out.
  screen.attachCustomKeyEventHandler((event) => {
    if (event.key !== "F6" || !event.shiftKey) return true;
    if (event.type === "keydown") leave();
    event.preventDefault();
    return false;
  });
  const watcher = new ResizeObserver(fit);
  watcher.observe(place);
  return {
    end: (words) => line.end(words),
    close: () => {
      watcher.disconnect();
      clearTimeout(timer);
      line.end("");
      screen.dispose();
    },
  };
}

export function Terminal({ id, connection }) {
  const [turn, setTurn] = useState(0);
  const [readAloud, setReadAloud] = useState(false);
  const begin = () => setTurn(turn + 1);
  if (turn > 0) return html`<${Session} key=${turn} id=${id} readAloud=${readAloud} again=${begin} />`;
  return html`
    <${Connected} connection=${connection}>
      <${Card} title="Terminal">
        <p>A shell on the device, as the user that its <code>mender-connect.conf</code> names. The audit log says that you opened it.</p>
        <p class="check"><input type="checkbox" id="read-aloud" checked=${readAloud} onChange=${(event) => setReadAloud(event.target.checked)} />
          <label for="read-aloud">For a screen reader</label></p>
        <button type="button" class="main" onClick=${begin}>Open a terminal</button>
      <//>
    <//>
  `;
}

const PHASES = { waiting: ["inprogress", "asking the device for a shell"], open: ["connected", "open"], ended: ["aborted", "ended"] };

function Session({ id, readAloud, again }) {
  const [state, setState] = useState({ phase: "waiting" });
  const place = useRef();
  const button = useRef();
  const shell = useRef();
  useEffect(() => {
    let isGone = false;
    const tell = (next) => !isGone && setState(next);
    open(id, place.current, { tell, readAloud, leave: () => button.current?.focus() }).then(
      (made) => {
        if (isGone) made.close();
        else shell.current = made;
      },
      (error) => tell({ phase: "ended", words: error.message }),
    );
    return () => {
      isGone = true;
      shell.current?.close();
    };
  }, []);
  const isOver = state.phase === "ended";
  useEffect(() => {
    if (isOver) button.current?.focus();
  }, [isOver]);
  const [looks, words] = PHASES[state.phase];
  return html`
    <div class="card">
      <div class="card-head">
        <h2>Terminal</h2>
        <div class="actions">
          <span role="status"><${Status} value=${looks}>${words}<//></span>
          <button type="button" ref=${button} class=${isOver ? "main" : ""} onClick=${() => (isOver ? again() : shell.current?.end("You have ended it."))}>${isOver ? "Connect again" : "End"}</button>
        </div>
      </div>
      ${isOver && state.words && html`<${Note} kind="wait"><span role="alert">${state.words}</span><//>`}
      <div class="shell"><div class="screen" ref=${place}></div></div>
      <p class="quiet">Shift and F6 lead out of the terminal.</p>
    </div>
  `;
}
