// Compares a replay with its trace, step by step; the engines differ only in how they take a step.
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

/**
 * Replay each conversation of a trace and print one JSON object: the steps, and the differences.
 *
 * `begin(transport, limit)` starts an engine, and returns the function that takes a step and returns what the engine
 * reports, by the keys of the trace.
 */
export function replay(trace, begin) {
  const { refusals, conversations } = JSON.parse(readFileSync(trace, "utf-8"));
  const differences = [];
  let steps = 0;
  for (const { name, transport, limit, steps: recorded } of conversations) {
    const take = begin(transport, limit);
    for (const [index, step] of recorded.entries()) {
      const expected = { ...step, refusals: refusals[step.refusals] };
      for (const [key, value] of Object.entries(take(step))) {
        if (!isDeepStrictEqual(value, expected[key])) {
          differences.push(`${name}, step ${index + 1} (${step.trigger}): ${key}: the core `
            + `${JSON.stringify(expected[key])}, the engine ${JSON.stringify(value)}`);
        }
      }
      steps += 1;
    }
  }
  console.log(JSON.stringify({ steps, differences }));
}
