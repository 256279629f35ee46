// Replays a trace in the interpreter of the explorer page: `node replay_page.mjs MODULES TRACE LIFECYCLE NAMES` compares
// each step with what machine.mjs reports, and prints one JSON object: the steps, and the differences. NAMES is the
// JSON of `flags`, those that rows set, and `effects`, the names in the trace by their texts.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { replay } from "./differences.mjs";

const [modules, trace, lifecycle, names] = process.argv.slice(2);
const { fire, newSession, refusalIn } = await import(pathToFileURL(`${modules}/machine.mjs`));
const table = JSON.parse(readFileSync(lifecycle, "utf-8"));
const { flags, effects } = JSON.parse(names);
const documented = table.commands.filter((rule) => !rule.extra);

/** Return the session after a trigger with its row and events; the row 0 where no row is taken. */
function stepped(session, { trigger, inputs }) {
  if (trigger === table.machine.resets_failures) return { row: null, events: [], session: { ...session, failures: 0 } };
  return fire(table, session, trigger, inputs) ?? { row: null, events: [], session };
}

replay(trace, (transport, limit) => {
  let session = newSession(table, transport, limit);
  return (step) => {
    const { row, events, session: next } = stepped(session, step);
    session = next;
    const refused = documented.map((rule) => [rule.command, refusalIn(table, rule, session)]).filter(([, text]) => text);
    return {
      state: session.state, row: row?.number ?? 0, events: events.filter((one) => one.published).map((one) => one.event),
      effects: (row?.effects ?? []).map((one) => effects[one]), failures: session.failures, refusals: Object.fromEntries(refused),
      flags: flags.filter((flag) => session.flags.includes(flag)),
    };
  };
});
