// Makes tests/wire/jquery_param.json: generated values, and what jQuery 3 posts of each as user data.
//
//   cd "$(mktemp -d)" && npm install jquery@3 jsdom
//   node PATH/TO/tests/wire/jquery_param.mjs > PATH/TO/tests/wire/jquery_param.json
//
// Each line of the table is [value, body]: `$.param({userData: value})` with its blanks as plus signs, which is what
// `$.ajax` puts into a form. Draws are by a fixed seed, so that the same versions give the same table.

import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { JSDOM } = require("jsdom");
const $ = require("jquery")(new JSDOM("").window);

let seed = 20260711;

function draw(below) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
}

const pick = (list) => list[draw(list.length)];
const many = (most, make) => Array.from({ length: draw(most + 1) }, make);

const TEXTS = ["", "A", "ü&=+", "größe 🙂", "a b", "[]", "x[y]", "%41", "~*'()!-_.", "\u0000", "\u2028", "\u0085\ufeff", "0", "<&>\"\\/", "true", "中文", "\r\n"];
const KEYS = ["a", "b", "sku", "größe 🙂", "a b", "x[y]", "[]", "", "é&=+", "A.B", "a-b", "~'()", "%", "\u2028"];
const EDGES = [0, -0, 1, -1, 1.5, 0.1, -0.25, 1e21, 1e20, 123456789012345680000, 1e-6, 1e-7, 1.5e-9, 1e300, 5e-324, 1.7976931348623157e308, 2 ** 53, -(2 ** 53), 0.1 + 0.2, 100, 1e2, 12345.678, -1e21, 1e22];

function number() {
  if (draw(2)) return pick(EDGES);
  const digits = (draw(2 ** 31) - 2 ** 30) * 10 ** (draw(60) - 30);
  return draw(2) ? digits : Math.trunc(digits % 2 ** 50);
}

function value(depth) {
  const kind = draw(depth > 0 ? 10 : 6);
  if (kind < 2) return pick(TEXTS);
  if (kind < 4) return number();
  if (kind === 4) return draw(2) === 1;
  if (kind === 5) return null;
  if (kind < 8) return many(4, () => value(depth - 1));
  return object(depth - 1);
}

function object(depth) {
  return Object.fromEntries(many(4, () => [pick(KEYS), value(depth)]));
}

// JSON.stringify writes minus zero as 0; written as -0.0, Python reads it as a negative float.
const json = (one) => JSON.stringify(one, (key, inner) => (Object.is(inner, -0) ? "@minus zero@" : inner));
const line = (one) => json(one).replaceAll('"@minus zero@"', "-0.0");

const examples = [
  { cart: [{ sku: "A" }], grid: [[1, 2]] },
  { mixed: [1, { b: 2 }, null, [3], "x", [], {}, [null], [[]]] },
  { "": [1, [2, 3], { a: 1 }, null] },
  { none: null, yes: true, no: false, empty: [], nothing: {} },
  ...EDGES.map((one) => ({ n: one, l: [one] })),
  ...TEXTS.map((one) => ({ t: one })),
  ...KEYS.map((one) => ({ [one]: { [one]: [one] } })),
];
const drawn = [...examples, ...Array.from({ length: 420 }, () => object(3))];
const body = (one) => $.param({ userData: one }).replaceAll("%20", "+");
process.stdout.write("[\n" + drawn.map((one) => `[${line(one)},${JSON.stringify(body(one))}]`).join(",\n") + "\n]\n");
