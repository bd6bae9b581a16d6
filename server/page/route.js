// Where one is: the part of the address behind `#`, `#/devices?status=pending`. The browser's own "back" works, an address
// can be sent to somebody, and the server has to know nothing of it.

import { useEffect, useState } from "./html.js";

/** `{path: ["devices", "ID"], query: {status: "pending"}}`. */
export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return {
    path: path.split("/").filter(Boolean).map(decode),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a place in the page. */
export function to(path, query) {
  const parts = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(parts).toString();
  return "#/" + path.map(encodeURIComponent).join("/") + (text ? `?${text}` : "");
}

/** Goes there; with `replace` so that "back" leads to what was before. */
export function go(address, { replace } = {}) {
  if (replace) location.replace(address);
  else location.hash = address;
}

export function useRoute() {
  const [route, setRoute] = useState(here);
  useEffect(() => {
    const changed = () => setRoute(here());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** Which page of a list the address asks for. Anybody may have written it. */
export const pageIn = (query) => Math.min(1e9, Math.max(1, Math.floor(Number(query.page)) || 1));

/** The query of the address as state: what is filtered survives a reload and can be sent to somebody. */
export function useQuery(route) {
  const change = (members) => go(to(route.path, { ...route.query, ...members }), { replace: true });
  return [route.query, change];
}
