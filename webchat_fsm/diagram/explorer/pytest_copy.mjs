/**
 * Writes a walk as a pytest test for the kit of webchat_fsm. Each happening has lines that make it happen; after each
 * of them the test checks the rows that were taken, the events and the state.
 */
import { make, possible, WalkError } from "./walk.mjs";

/**
 * Return the test of a walk, or the reason why it cannot be copied.
 * @param {import("./walk.mjs").Leg[]} legs
 * @returns {{code: string}|{refusal: string}}
 */
export function asPytest(table, legs, name = "test_walk") {
  if (!legs.length) return { refusal: "the walk has no step yet" };
  const grouped = group(table, legs);
  if ("refusal" in grouped) return grouped;
  const { transport, limit } = legs[0].before;
  const body = grouped.legs.flatMap((leg) => lines(table, leg));
  // The server's fixture brings the timeline, which a test names only where it moves the time itself.
  const fixtures = ["webchat_server", "webchat_recording"];
  if (body.some((line) => line.includes("webchat_timeline"))) fixtures.unshift("webchat_timeline");
  return { code: [...head(table, transport, limit, name, fixtures), ...body].join("\n") + "\n" };
}

function head(table, transport, limit, name, fixtures) {
  return [
    "# The fixtures come with webchat_fsm: pytest loads its plugin where the package is installed.",
    `# Save this as ${name}.py, and run: python -m pytest ${name}.py`,
    "from webchat_fsm import MemoryStore",
    "",
    "",
    `def ${name}(${fixtures.join(", ")}):`,
    `    chat = webchat_server.client("${transport}", config={"pollExceptionLimit": ${limit}}, store=MemoryStore())`,
    "    seen = [0, 0]",
    "",
    "    def check(state, triggers, events):",
    "        recording = webchat_recording.of(chat)",
    "        taken, published = recording.transitions, recording.events",
    "        assert [row.trigger for row in taken[seen[0] :]] == triggers",
    "        # whether an answer brings messages at all depends on the server: their own events are compared",
    `        assert [one.name for one in published[seen[1] :] if one.name != "${table.machine.content_event}"] == events`,
    "        assert chat.state == state",
    "        seen[:] = len(taken), len(published)",
    "",
  ];
}

/** Return the lines of one leg, whose move is a happening. */
function lines(table, leg) {
  const happening = possible(table, leg.before).find((one) => one.id === leg.move.happening);
  const triggers = leg.steps.map((step) => step.row.trigger);
  const published = leg.steps.flatMap((step) => step.events.filter((one) => one.published).map((one) => one.event));
  const events = published.filter((event) => event !== table.machine.content_event);
  const check = `check(${text(leg.after.state)}, ${list(triggers)}, ${list(events)})`;
  return [`    # ${leg.label}`, ...happening.python(leg.before).map((line) => `    ${line}`), `    ${check}`];
}

const text = (value) => JSON.stringify(value);
const list = (values) => `[${values.map(text).join(", ")}]`;
const rowsOf = (leg) => leg.steps.map((step) => step.row.number);

/**
 * Turn single rows into happenings that take the same rows, where there are such. Each later move is made again after
 * them, as a happening also changes what the server knows, which a row alone does not.
 */
function group(table, legs) {
  const grouped = [];
  let world = legs[0].before;
  for (let at = 0; at < legs.length; ) {
    const found = "row" in legs[at].move ? joined(table, world, legs, at) : again(table, world, legs[at]);
    if (!found) return { refusal: reason(legs[at], at) };
    grouped.push(found.leg);
    world = found.leg.after;
    at += found.length;
  }
  return { legs: grouped };
}

/** Return a happening made again after other moves, undefined where it does not take the same rows there. */
function again(table, world, { move, ...leg }) {
  if (!("happening" in move)) return undefined;
  try {
    const made = make(table, world, move);
    return text(rowsOf(made)) === text(rowsOf(leg)) ? { leg: made, length: 1 } : undefined;
  } catch (error) {
    if (error instanceof WalkError) return undefined;
    throw error;
  }
}

/** Return the happening that takes the rows of the next legs, with the number of those. */
function joined(table, world, legs, at) {
  const rows = [];
  for (const leg of legs.slice(at)) {
    if (!("row" in leg.move)) break;
    rows.push(leg.move.row);
  }
  // The longest first: a poll that fails begins like a request that has no answer.
  const found = possible(table, world)
    .map((one) => make(table, world, { happening: one.id }))
    .filter((leg) => leg.steps.length && rowsOf(leg).every((number, index) => number === rows[index]))
    .toSorted((one, other) => other.steps.length - one.steps.length)[0];
  return found && { leg: found, length: found.steps.length };
}

function reason({ move, steps }, at) {
  if ("assume" in move) return `step ${at + 1} assumes a flag, which the test kit cannot set`;
  if ("happening" in move) return `step ${at + 1} takes other rows once the test kit makes the single rows before it happen`;
  const { trigger, number } = steps[0].row;
  return `step ${at + 1} (${trigger}, row ${number}) is part of no input that the test kit can give there; use the list "What happens next"`;
}
