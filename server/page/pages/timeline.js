// Phases of a roll-out on a time line: how much of the fleet may have begun, and from when on. What is drawn is said in words
// below it as well.

import { html } from "../html.js";
import { counted, number } from "../words.js";
import { Time } from "../ui.js";

const WIDTH = 1000;
const HEIGHT = 100;
/** A phase that is short beside the others can be seen all the same. */
const NARROWEST = 70;

/**
 * Where the phases begin, from left to right, and where now is. `starts` are times in milliseconds that do not go back; the
 * first may be `null` for at once.
 */
export function places(starts, now) {
  const times = starts.map((start) => start ?? Math.min(now, ...starts.filter((one) => one !== null)));
  const first = times[0];
  const last = Math.max(times.at(-1), now);
  // The last phase has no end: it gets as much as one of them has on average.
  const open = Math.max((last - first) / Math.max(1, times.length - 1), 1);
  const scale = (WIDTH - NARROWEST) / (last + open - first);
  const at = [];
  for (const time of times) at.push(Math.max((time - first) * scale, at.length ? at.at(-1) + NARROWEST : 0));
  const most = at.at(-1) + NARROWEST;
  const fit = most > WIDTH ? WIDTH / most : 1;
  const left = at.map((one) => one * fit);
  return { left, now: nowAt(times, left, now) };
}

/** Between two phases now is as far as its time is; the widths are no exact scale. */
function nowAt(times, left, now) {
  if (now <= times[0]) return 0;
  const next = times.findIndex((time) => time > now);
  if (next === -1) return left.at(-1) + (WIDTH - left.at(-1)) / 2;
  const part = (now - times[next - 1]) / (times[next] - times[next - 1]);
  return left[next - 1] + part * (left[next] - left[next - 1]);
}

/**
 * `phases` are `[{start, count, begun, words}]`: when it begins (milliseconds, or `null` for at once), for how many devices it
 * is as far as that is known, how many of these have begun, and its size in words.
 */
export function Timeline({ phases, total, now = Date.now() }) {
  const { left, now: today } = places(phases.map((phase) => phase.start), now);
  const known = phases.every((phase) => phase.count !== undefined) && total > 0;
  let below = 0;
  const steps = phases.map((phase, at) => {
    below += known ? phase.count / total : 1 / phases.length;
    const height = Math.min(1, below) * HEIGHT;
    const state = phase.start !== null && phase.start > now ? "later" : "open";
    return { ...phase, left: left[at], width: (left[at + 1] ?? WIDTH) - left[at], height, state };
  });
  return html`
    <figure class="timeline">
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`Phases: ${steps.map(inWords).join("; ")}`}>
        ${steps.map((step) => html`<rect class=${`step ${step.state}`} x=${step.left} y=${HEIGHT - step.height} width=${step.width} height=${step.height} />`)}
        ${steps.map((step) => begunPart(step, total, known))}
        <line class="now" x1=${today} x2=${today} y1="0" y2=${HEIGHT} />
      </svg>
      <ol>
        ${steps.map(
          (step) => html`<li>
            <strong>${step.words}</strong>
            ${step.count !== undefined && html` <span class="quiet">(${counted(step.count, "device")})</span>`},
            ${" "}${step.start === null ? "at once" : html`<${Time} at=${new Date(step.start).toISOString()} /> <span class="quiet">(${new Date(step.start).toLocaleString()})</span>`}
            ${step.begun !== undefined && html`: ${number(step.begun)} ${step.begun === 1 ? "has" : "have"} begun`}
          </li>`,
        )}
      </ol>
    </figure>
  `;
}

/** Of a phase that is open: how much of it has begun, as a stripe at its foot. */
function begunPart(step, total, known) {
  if (!step.begun || !step.count || !known) return null;
  const width = step.width * Math.min(1, step.begun / step.count);
  return html`<rect class="step begun" x=${step.left} y=${HEIGHT - 8} width=${width} height="8" />`;
}

const inWords = (step) => `${step.words} ${step.start === null ? "at once" : new Date(step.start).toLocaleString()}`;

/** The size of a phase of the API in words. */
export function sizeWords(phase, { canaries = false, last = false } = {}) {
  if (canaries) return `${counted(phase.batch_size_devices ?? phase.device_count ?? 0, "chosen device")} first`;
  if (last || (!phase.batch_size && !phase.batch_size_devices)) return "The rest";
  return phase.batch_size ? `${Number(phase.batch_size.toFixed(2))} %` : counted(phase.batch_size_devices, "device");
}
