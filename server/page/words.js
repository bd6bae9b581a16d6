// How values are said.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** `9.4 MiB`. */
export function bytes(count) {
  if (count === undefined || count === null) return "–";
  let unit = 0;
  while (count >= 1024 && unit < UNITS.length - 1) {
    count /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || count >= 100 ? 0 : 1;
  return `${count.toFixed(digits)} ${UNITS[unit]}`;
}

export const number = (count) => (count ?? 0).toLocaleString("en");

/** `1 device`, `312 devices`. */
export const counted = (count, one, more = `${one}s`) => `${number(count)} ${count === 1 ? one : more}`;

export const percent = (part, whole) => (whole ? `${Math.floor((100 * part) / whole)} %` : "0 %");

const STEPS = [
  [60, "second", 1],
  [3600, "minute", 60],
  [86400, "hour", 3600],
  [86400 * 60, "day", 86400],
  [Infinity, "month", 86400 * 30],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** `5 minutes ago`. */
export function ago(text, now = Date.now()) {
  const seconds = (Date.parse(text) - now) / 1000;
  if (Number.isNaN(seconds)) return "never";
  const [, unit, size] = STEPS.find(([limit]) => Math.abs(seconds) < limit);
  return relative.format(Math.round(seconds / size), unit);
}

/** A moment as `<input type="datetime-local">` has it: in the time of here, and without a zone. */
export function localTime(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

/** What the server says, as a sentence. */
export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");

/** The beginning of an id, for people. */
export const short = (id) => (id ?? "").slice(0, 8);

/** What a status of a device, a deployment or a device in a deployment looks like: `good`, `bad`, `wait`, `busy`, `plain`. */
export function looks(status) {
  switch (status) {
    case "accepted":
    case "success":
    case "already-installed":
    case "OK":
    case "finished":
    case "connected":
      return "good";
    case "failure":
    case "rejected":
    case "aborted":
    case "noartifact":
    case "decommissioned":
    case "CRITICAL":
      return "bad";
    case "pending":
    case "scheduled":
    case "preauthorized":
    case "held":
    case "pause_before_installing":
    case "pause_before_rebooting":
    case "pause_before_committing":
      return "wait";
    case "inprogress":
    case "downloading":
    case "installing":
    case "rebooting":
      return "busy";
    default:
      return "plain";
  }
}
