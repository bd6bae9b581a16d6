// How many devices have ended a roll-out, over time: drawn from what was seen while the page was open, and before that from the
// times of some devices.

import { html } from "../html.js";
import { number } from "../words.js";

const WIDTH = 1000;
const HEIGHT = 120;
/** Points that are kept; more cannot be seen. */
export const MOST_POINTS = 300;

/**
 * Points of the time before one looked: `times` are `[{time, isGood}]` of devices that have ended it, a part or all of them;
 * `good` and `bad` are how many have. What one device stands for is the same for all of a kind.
 */
export function before(times, good, bad) {
  const sorted = [...times].sort((a, b) => a.time - b.time);
  const each = { good: good / Math.max(1, sorted.filter((one) => one.isGood).length), bad: bad / Math.max(1, sorted.filter((one) => !one.isGood).length) };
  const points = [];
  const sum = { good: 0, bad: 0 };
  for (const { time, isGood } of sorted) {
    sum[isGood ? "good" : "bad"] += each[isGood ? "good" : "bad"];
    points.push({ time, good: sum.good, bad: sum.bad });
  }
  return points;
}

/** `points` with one more; when there are too many, every second one of the older half goes. */
export function withPoint(points, point) {
  const last = points.at(-1);
  // What stays the same is a line between its two ends.
  const isSame = (a, b) => a && b && a.good === b.good && a.bad === b.bad;
  const kept = isSame(last, point) && isSame(points.at(-2), point) ? points.slice(0, -1) : points;
  const all = [...kept, point];
  if (all.length <= MOST_POINTS) return all;
  const half = all.length >> 1;
  return all.filter((_, at) => at > half || at % 2 === 0);
}

/** Devices that ended in a second, of the last minutes; `null` when one has not looked long enough. */
export function pace(points, now, { minutes = 5, least = 20 } = {}) {
  const recent = points.filter((point) => point.time >= now - minutes * 60000);
  if (recent.length < 2) return null;
  const [first, last] = [recent[0], recent.at(-1)];
  const seconds = (last.time - first.time) / 1000;
  if (seconds < least) return null;
  return Math.max(0, (last.good + last.bad - first.good - first.bad) / seconds);
}

const area = (points, x, y, height) => {
  if (points.length === 0) return "";
  const line = points.map((point) => `${x(point.time).toFixed(1)} ${y(height(point)).toFixed(1)}`);
  return `M ${x(points[0].time).toFixed(1)} ${HEIGHT} L ${line.join(" L ")} L ${x(points.at(-1).time).toFixed(1)} ${HEIGHT} Z`;
};

/** The curve from `start` to `end`; `note` says how far it is exact. */
export function Curve({ points, start, end, total, note }) {
  const length = Math.max(end - start, 1);
  const x = (time) => (Math.min(Math.max(time - start, 0), length) * WIDTH) / length;
  const y = (count) => HEIGHT - (Math.min(count, total) * HEIGHT) / Math.max(1, total);
  const shown = [{ time: start, good: 0, bad: 0 }, ...points];
  const last = shown.at(-1);
  const words = `From ${new Date(start).toLocaleString()} to ${new Date(end).toLocaleString()}: ${number(Math.round(last.good))} of ${number(total)} devices succeeded, ${number(Math.round(last.bad))} failed or ended otherwise.`;
  const isSameDay = new Date(start).toDateString() === new Date(end).toDateString();
  const label = (time) => (isSameDay ? new Date(time).toLocaleTimeString() : new Date(time).toLocaleString());
  return html`
    <figure class="curve">
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${words}>
        ${[0.25, 0.5, 0.75].map((part) => html`<line class="grid" x1="0" x2=${WIDTH} y1=${part * HEIGHT} y2=${part * HEIGHT} />`)}
        <path class="bar-bad" d=${area(shown, x, y, (point) => point.good + point.bad)} />
        <path class="bar-good" d=${area(shown, x, y, (point) => point.good)} />
      </svg>
      <div class="axis" aria-hidden="true"><span>${label(start)}</span><span>${number(total)} devices is the top</span><span>${label(end)}</span></div>
      <figcaption><span class="key good">succeeded</span><span class="key bad">failed or ended otherwise</span>${note && html`<span class="quiet">${note}</span>`}</figcaption>
    </figure>
  `;
}
