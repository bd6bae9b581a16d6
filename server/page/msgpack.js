// MessagePack, as far as the frames of `mender-connect` need it: maps with text as keys, lists, texts, bytes, whole numbers, `true`,
// `false` and nothing, both directions; fractions are read only. Not there: extensions, and numbers beyond 2^53.

/** Values within values: a frame has four levels. */
const DEEPEST = 16;

const writeText = new TextEncoder();
const readText = new TextDecoder("utf-8", { fatal: true });

export function encode(value) {
  const to = [];
  write(to, value);
  return Uint8Array.from(to);
}

function write(to, value) {
  if (value === null || value === undefined) to.push(0xc0);
  else if (value === false) to.push(0xc2);
  else if (value === true) to.push(0xc3);
  else if (typeof value === "number") writeNumber(to, value);
  else if (typeof value === "string") {
    const bytes = writeText.encode(value);
    if (bytes.length < 32) to.push(0xa0 | bytes.length);
    else length(to, [0xd9, 0xda, 0xdb], bytes.length);
    push(to, bytes);
  } else if (value instanceof Uint8Array) {
    length(to, [0xc4, 0xc5, 0xc6], value.length);
    push(to, value);
  } else if (Array.isArray(value)) {
    if (value.length < 16) to.push(0x90 | value.length);
    else length(to, [null, 0xdc, 0xdd], value.length);
    for (const one of value) write(to, one);
  } else {
    const pairs = Object.entries(value);
    if (pairs.length < 16) to.push(0x80 | pairs.length);
    else length(to, [null, 0xde, 0xdf], pairs.length);
    for (const [key, one] of pairs) {
      write(to, key);
      write(to, one);
    }
  }
}

function push(to, bytes) {
  for (const byte of bytes) to.push(byte);
}

/** A length in one, two or four bytes, behind the mark for that; maps and lists have no mark for one. */
function length(to, [one, two, four], count) {
  if (one !== null && count < 0x100) to.push(one, count);
  else if (count < 0x10000) to.push(two, count >> 8, count & 0xff);
  else to.push(four, count >>> 24, (count >> 16) & 0xff, (count >> 8) & 0xff, count & 0xff);
}

function writeNumber(to, value) {
  if (!Number.isSafeInteger(value) || value < -0x80000000) throw new RangeError(`${value} is no number of a frame`);
  if (value >= 0 && value < 0x80) to.push(value);
  else if (value < 0) to.push(0xd2, (value >> 24) & 0xff, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff);
  else if (value < 0x100000000) to.push(0xce, value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
  else {
    const high = Math.floor(value / 0x100000000);
    to.push(0xcf, high >>> 24, (high >>> 16) & 0xff, (high >>> 8) & 0xff, high & 0xff);
    to.push((value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
  }
}

/** The one value that `bytes` are; throws a `RangeError` when they are something else. Maps become objects without a prototype. */
export function decode(bytes) {
  const from = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), at: 0 };
  const value = read(from, DEEPEST);
  if (from.at !== bytes.length) throw new RangeError("there is more behind the value");
  return value;
}

function take(from, count) {
  if (count > from.bytes.length - from.at) throw new RangeError("the value ends too early");
  const at = from.at;
  from.at += count;
  return at;
}

const part = (from, count) => {
  const at = take(from, count);
  return from.bytes.subarray(at, at + count);
};

function text(from, count) {
  try {
    return readText.decode(part(from, count));
  } catch (error) {
    throw error instanceof RangeError ? error : new RangeError("a text is no UTF-8");
  }
}

function number(value) {
  if (value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER) throw new RangeError("a number is too large");
  return Number(value);
}

function list(from, count, depth) {
  const found = [];
  // The bytes end this, whatever the count.
  for (let at = 0; at < count; at += 1) found.push(read(from, depth));
  return found;
}

function map(from, count, depth) {
  const found = Object.create(null);
  for (let at = 0; at < count; at += 1) {
    const key = read(from, depth);
    if (typeof key !== "string") throw new RangeError("a key is no text");
    found[key] = read(from, depth);
  }
  return found;
}

function read(from, deepest) {
  if (deepest === 0) throw new RangeError("the value is too deep");
  const depth = deepest - 1;
  const kind = from.bytes[take(from, 1)];
  const { view } = from;
  if (kind < 0x80) return kind;
  if (kind < 0x90) return map(from, kind & 0x0f, depth);
  if (kind < 0xa0) return list(from, kind & 0x0f, depth);
  if (kind < 0xc0) return text(from, kind & 0x1f);
  if (kind >= 0xe0) return kind - 0x100;
  switch (kind) {
    case 0xc0:
      return null;
    case 0xc2:
      return false;
    case 0xc3:
      return true;
    case 0xc4:
      return part(from, view.getUint8(take(from, 1)));
    case 0xc5:
      return part(from, view.getUint16(take(from, 2)));
    case 0xc6:
      return part(from, view.getUint32(take(from, 4)));
    case 0xca:
      return view.getFloat32(take(from, 4));
    case 0xcb:
      return view.getFloat64(take(from, 8));
    case 0xcc:
      return view.getUint8(take(from, 1));
    case 0xcd:
      return view.getUint16(take(from, 2));
    case 0xce:
      return view.getUint32(take(from, 4));
    case 0xcf:
      return number(view.getBigUint64(take(from, 8)));
    case 0xd0:
      return view.getInt8(take(from, 1));
    case 0xd1:
      return view.getInt16(take(from, 2));
    case 0xd2:
      return view.getInt32(take(from, 4));
    case 0xd3:
      return number(view.getBigInt64(take(from, 8)));
    case 0xd9:
      return text(from, view.getUint8(take(from, 1)));
    case 0xda:
      return text(from, view.getUint16(take(from, 2)));
    case 0xdb:
      return text(from, view.getUint32(take(from, 4)));
    case 0xdc:
      return list(from, view.getUint16(take(from, 2)), depth);
    case 0xdd:
      return list(from, view.getUint32(take(from, 4)), depth);
    case 0xde:
      return map(from, view.getUint16(take(from, 2)), depth);
    case 0xdf:
      return map(from, view.getUint32(take(from, 4)), depth);
    default:
      throw new RangeError(`no value begins with ${kind}`);
  }
}
