// What is typed, when the typing has stopped.

import { html, useEffect, useRef, useState } from "../html.js";
import { Field } from "../ui.js";

/** `value`, as it was `milliseconds` ago when it has not changed since. */
export function useLater(value, milliseconds) {
  const [late, setLate] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setLate(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return late;
}

/** A text to search for; `onText` is called when somebody has stopped typing. */
export function Search({ label, text = "", onText, ...props }) {
  const [typed, setTyped] = useState(text);
  const late = useLater(typed, 300);
  const told = useRef(text);
  useEffect(() => {
    if (late === told.current) return;
    told.current = late;
    onText(late);
  }, [late]);
  // Another address, as by "back", says something else.
  useEffect(() => {
    if (text === told.current) return;
    told.current = text;
    setTyped(text);
  }, [text]);
  return html`<${Field} label=${label} type="search" value=${typed} onInput=${(event) => setTyped(event.target.value)} ...${props} />`;
}
