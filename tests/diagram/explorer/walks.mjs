/**
 * Prints walks of the explorer on one transport as pytest tests: for each happening the shortest walk to it, followed by
 * random steps. Also the happenings, and the triggers that none of them fires. With `rows` single
 * rows stand among the happenings of the walks, of which those that cannot be copied are left out.
 */
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, lifecycle, transport, seed, further, how] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${folder}/${name}.mjs`));
const { HAPPENINGS } = await load("happenings");
const { choices, make, newWorld, possible, replay, triggersWithoutHappening } = await load("walk");
const { asPytest } = await load("pytest_copy");
const table = JSON.parse(readFileSync(lifecycle, "utf8"));

let state = Number(seed);
/** Return a number below another one; the same seed gives the same numbers. */
function below(limit) {
  state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
  return Math.floor((state / 0x80000000) * limit);
}

const next = (world, id) => make(table, world, { happening: id }).after;

/** Return what of a world decides on the happenings that are possible after it. */
function keyOf(world, limit) {
  return JSON.stringify([world.state, world.opened, world.inputs, world.flags.toSorted(), world.people, world.failures > limit]);
}

/** Return the shortest walk to each happening, its own step included; one person at a time is in the chat. */
function shortest(limit) {
  const found = new Map();
  const first = newWorld(table, transport, limit);
  const seen = new Set([keyOf(first, limit)]);
  const open = [{ world: first, walk: [] }];
  while (open.length) {
    const { world, walk } = open.shift();
    for (const { id } of possible(table, world)) {
      const longer = [...walk, id];
      if (!found.has(id)) found.set(id, longer);
      const reached = next(world, id);
      const key = keyOf(reached, limit);
      if (seen.has(key) || reached.people.length > 1) continue;
      seen.add(key);
      open.push({ world: reached, walk: longer });
    }
  }
  return found;
}

/** Return a walk with random steps at its end. */
function prolonged(limit, walk) {
  let world = walk.reduce(next, newWorld(table, transport, limit));
  const whole = [...walk];
  for (let step = 0; step < Number(further); step += 1) {
    const offered = possible(table, world);
    whole.push(offered[below(offered.length)].id);
    world = next(world, whole.at(-1));
  }
  return whole;
}

/** Return the moves of a walk in which half of the happenings are made by their rows, and single rows come between. */
function mixed(limit, walk) {
  const moves = [];
  let world = newWorld(table, transport, limit);
  const take = (move) => {
    world = make(table, world, move).after;
    moves.push(move);
  };
  for (const happening of walk) {
    if (!possible(table, world).some((one) => one.id === happening)) continue;
    const { steps } = make(table, world, { happening });
    if (steps.length && below(2)) for (const { row } of steps) take({ row: row.number });
    else take({ happening });
    const rows = choices(table, world);
    if (rows.length && !below(8)) take({ row: rows[below(rows.length)].row.number });
  }
  return moves;
}

/** Return the walk as a test, or why it cannot be copied. */
function written(limit, id, walk) {
  const moves = how === "rows" ? mixed(limit, walk) : walk.map((happening) => ({ happening }));
  return asPytest(table, replay(table, transport, limit, moves), `test_${id.replaceAll("-", "_")}`);
}

const limit = below(3);
const walks = [...shortest(limit)];
const tests = walks.map(([id, walk]) => written(limit, id, prolonged(limit, walk)));
process.stdout.write(JSON.stringify({
  code: tests.flatMap((one) => one.code ?? []).join("\n\n"),
  copied: tests.filter((one) => one.code).length,
  happened: walks.map(([id]) => id),
  all: HAPPENINGS.map((one) => one.id),
  missing: triggersWithoutHappening(table, transport),
}));
