// The frames of a terminal: what is written is read again, and what is no frame is refused.

import { test } from "node:test";
import assert from "node:assert/strict";
import { decode, encode } from "./connected.mjs";

const bytes = (...values) => Uint8Array.from(values);

test("what is written is read again", () => {
  const lengths = [0, 1, 31, 32, 255, 256, 65535, 65536];
  for (const length of lengths) {
    const frame = { text: "x".repeat(length), body: new Uint8Array(length).fill(7), list: Array.from({ length: Math.min(length, 300) }, (_, at) => at) };
    assert.deepEqual({ ...decode(encode(frame)) }, frame);
  }
  for (const value of [0, 1, 127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER, -1, -32, -33, -(2 ** 31), true, false, null, "", "ü"]) {
    assert.deepEqual(decode(encode(value)), value);
  }
  const wide = Object.fromEntries(Array.from({ length: 20 }, (_, at) => [`key${at}`, at]));
  assert.deepEqual({ ...decode(encode(wide)) }, wide);
});

test("numbers of every width are read", () => {
  for (const [read, ...written] of [
    [7, 0xcc, 7],
    [256, 0xcd, 1, 0],
    [-1, 0xd0, 0xff],
    [-2, 0xd1, 0xff, 0xfe],
    [-3, 0xd2, 0xff, 0xff, 0xff, 0xfd],
    [-4, 0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc],
    [5, 0xcf, 0, 0, 0, 0, 0, 0, 0, 5],
    [1.5, 0xca, 0x3f, 0xc0, 0, 0],
    [1.5, 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
  ]) {
    assert.equal(decode(bytes(...written)), read);
  }
});

test("a key that means something to the language is a key like another", () => {
  const read = decode(bytes(0x81, 0xa9, ...new TextEncoder().encode("__proto__"), 0x81, 0xa1, 0x61, 1));
  assert.equal(Object.getPrototypeOf(read), null);
  assert.equal({}.a, undefined);
});

test("what is no value is refused, and nothing is made of what it says", () => {
  for (const [why, ...written] of [
    ["nothing"],
    ["a map that ends", 0x81],
    ["a byte that begins nothing", 0xc1],
    ["an extension", 0xd4, 1, 1],
    ["a key that is no text", 0x81, 1, 2],
    ["a text that is longer than all", 0xdb, 0xff, 0xff, 0xff, 0xff],
    ["bytes that are longer than all", 0xc6, 0xff, 0xff, 0xff, 0xff],
    ["a map that is longer than all", 0xdf, 0xff, 0xff, 0xff, 0xff],
    ["a list that is longer than all", 0xdd, 0xff, 0xff, 0xff, 0xff],
    ["a number that is too large", 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ["a number that ends", 0xce, 0, 0],
    ["a text that is no UTF-8", 0xa1, 0xff],
    ["more behind it", 1, 1],
    ["too deep", ...Array(40).fill(0x91), 1],
  ]) {
    assert.throws(() => decode(bytes(...written)), RangeError, why);
  }
});
