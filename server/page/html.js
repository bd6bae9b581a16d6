// What every file of the page begins with: components, state, and markup in template strings.
//
// Whatever stands in `${…}` becomes text or the value of an attribute, never markup: names, logs and inventory of devices
// are data. Nothing here or elsewhere in the page makes markup of a text; `cargo xtask page` looks for it.

import { h, render, Fragment } from "./lib/preact.js";
import htm from "./lib/htm.js";

export { render, Fragment };
export { useEffect, useMemo, useRef, useState, useCallback } from "./lib/hooks.js";
export const html = htm.bind(h);
