/**
 * Walks through the lifecycle: a list of moves, each a happening, a single row, or an assumption about a flag.
 * A walk is replayed from its beginning, so that undoing is leaving the last move out. Without DOM.
 *
 * @typedef {import("./happenings.mjs").World} World
 * @typedef {{happening: string}|{row: number}|{assume: string, value: boolean}} Move
 * @typedef {{move: Move, label: string, before: World, after: World, steps: import("./machine.mjs").Step[]}} Leg one
 *   move with the world before and after it, and the rows that it takes
 */
import { fire, holds, inputFlags, newSession, refusalIn, rowsFor } from "./machine.mjs";
import { HAPPENINGS } from "./happenings.mjs";

/** Events of messages, with the input that each sets (true) or clears (false). */
const INPUT_OF = {
  agentConnected: ["agent_in", true],
  agentDisconnected: ["agent_in", false],
  supervisorConnected: ["supervisor_in", true],
  supervisorDisconnected: ["supervisor_in", false],
  botConnected: ["bot_in", true],
  botDisconnected: ["bot_in", false],
  clientConnected: ["client_out", false],
  clientDisconnected: ["client_out", true],
};

/** Raised for a move that cannot be made; the text names it. */
export class WalkError extends Error {}

/** Return the world before the first move. @returns {World} */
export function newWorld(table, transport, limit) {
  const inputs = Object.fromEntries(table.machine.inputs.map((name) => [name, false]));
  const can = table.transports.find((one) => one.transport === transport);
  const sessionStates = table.states.filter((one) => one.has_session).map((one) => one.state);
  return { ...newSession(table, transport, limit), inputs, people: [], waiting: [], history: [], can, sessionStates };
}

/** Return the names of all flags that are set, those of messages too. */
export function flagsOf(table, world) {
  return [...world.flags, ...inputFlags(table).filter((one) => world.inputs[one.variable]).map((one) => one.flag)];
}

/** Return the happening of an id; undefined for an unknown one. */
export function happeningOf(id) {
  return HAPPENINGS.find((one) => one.id === id);
}

/** Return the happenings that are possible now. */
export function possible(table, world) {
  return HAPPENINGS.filter((one) => canHappen(table, world, one));
}

function canHappen(table, world, { command, when }) {
  const rule = table.commands.find((one) => one.command === command);
  return when(world) && !(rule && refusalIn(table, rule, world));
}

/**
 * Fire triggers one after the other.
 * @returns {{world: World, steps: import("./machine.mjs").Step[]}}
 */
function fireAll(table, world, triggers) {
  const steps = [];
  let now = world;
  for (const one of triggers) {
    const { trigger, brings = [] } = typeof one === "string" ? { trigger: one } : one;
    const step = fire(table, now, trigger, { ...now.inputs, content: brings.length > 0 });
    if (!step) throw new WalkError(`there is no row for ${trigger} in state ${now.state}`);
    steps.push({ ...step, events: withBrought(table, step.events, brings) });
    now = after(table, now, step, brings);
  }
  return { world: now, steps };
}

/** Return the world after a step whose answer has brought events of messages. */
function after(table, world, { row, session }, brings) {
  const inputs = { ...world.inputs };
  // What begins or leaves a session knows no one in it.
  if (table.effects.some((one) => one.clears.length && row.effects.includes(one.effect))) {
    for (const { variable } of inputFlags(table)) inputs[variable] = false;
  }
  if (world.sessionStates.includes(session.state)) for (const event of brings) inputs[INPUT_OF[event][0]] = INPUT_OF[event][1];
  for (const { saves } of table.effects.filter((one) => row.effects.includes(one.effect))) inputs.restorable = saves ?? inputs.restorable;
  // The core saves an open session as it closes.
  if (row.trigger === table.machine.closed_by && world.sessionStates.includes(row.source)) inputs.restorable = true;
  return { ...world, ...session, inputs };
}

/** Put the events of the messages before messageReceived. */
function withBrought(table, events, brings) {
  const at = events.findIndex((one) => one.event === table.machine.content_event);
  if (at < 0) return events;
  const own = brings.map((event) => ({ event, published: true, condition: "brought by a message" }));
  return [...events.slice(0, at), ...own, ...events.slice(at)];
}

/** Make one move; raises WalkError for one that is impossible. @returns {Leg} */
export function make(table, world, move) {
  if ("happening" in move) return makeHappening(table, world, move);
  if ("assume" in move) return makeAssumption(table, world, move);
  const row = choices(table, world).map((one) => one.row).find((one) => one.number === move.row);
  if (!row) throw new WalkError(`row ${move.row} cannot be taken in state ${world.state}`);
  const step = fire(table, world, row.trigger, { ...world.inputs, content: true }, row);
  return { move, label: row.trigger, before: world, after: after(table, world, step, []), steps: [step] };
}

function makeHappening(table, world, move) {
  const happening = happeningOf(move.happening);
  if (!happening || !canHappen(table, world, happening)) throw new WalkError(`${move.happening} cannot happen in state ${world.state}`);
  const { world: left, steps } = fireAll(table, world, happening.triggers(world));
  return { move, label: happening.label, before: world, after: happening.server?.(left) ?? left, steps };
}

function makeAssumption(table, world, move) {
  const flag = inputFlags(table).find((one) => one.variable === move.assume);
  if (!flag) throw new WalkError(`there is no input ${move.assume}`);
  const inputs = { ...world.inputs, [move.assume]: move.value };
  const label = `assume: ${flag.flag}, ${move.value ? "yes" : "no"}`;
  return { move, label, before: world, after: { ...world, inputs }, steps: [] };
}

/** Make all moves of a walk; raises WalkError for an impossible one. @param {Move[]} moves @returns {Leg[]} */
export function replay(table, transport, limit, moves) {
  const legs = [];
  let world = newWorld(table, transport, limit);
  for (const move of moves) {
    legs.push(make(table, world, move));
    world = legs.at(-1).after;
  }
  return legs;
}

/** Return the rows that can be taken now by any answer to their guards, each with whether its guards hold as it is. */
export function choices(table, world) {
  const triggers = new Set(table.transitions.filter((row) => row.source === world.state).map((row) => row.trigger));
  return [...triggers].filter((trigger) => canCome(table, world, trigger)).flatMap((trigger) => {
    const rows = rowsFor(table, world.transport, world.state, trigger);
    const taken = rows.find((row) => holds(table, row, world, world.inputs));
    return rows.map((row) => ({ row, taken: row === taken }));
  });
}

/** Return whether a trigger can come: a command where it is legal for the service, open where it is not open yet. */
function canCome(table, world, trigger) {
  const { opened_by: opens } = table.machine;
  const rule = table.commands.find((one) => one.command === trigger);
  return world.opened === (trigger !== opens) && !(rule && refusalIn(table, rule, world, true));
}

/** Return the triggers of a transport that no happening fires. */
export function triggersWithoutHappening(table, transport) {
  const driven = new Set();
  const seen = new Set();
  const open = [newWorld(table, transport, 1)];
  while (open.length) {
    const world = open.pop();
    for (const happening of possible(table, world).filter((one) => one.group !== "the other side")) {
      const leg = make(table, world, { happening: happening.id });
      for (const step of leg.steps) driven.add(step.row.trigger);
      // Once the chat has an outage or none, further flags allow no other happening.
      const { state, opened, inputs, flags, failures } = leg.after;
      const key = JSON.stringify([state, opened, inputs.restorable, flags.includes("client_typing"), flags.includes("disconnected"), failures > 1]);
      if (!seen.has(key)) open.push(leg.after);
      seen.add(key);
    }
  }
  const all = new Set(table.transitions.filter((row) => row.transports.includes(transport)).map((row) => row.trigger));
  return [...all].filter((trigger) => !driven.has(trigger));
}
