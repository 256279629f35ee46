/**
 * Interprets lifecycle.json: which row a trigger takes, what it publishes, and what it changes. README.md of the folder
 * `diagrams` has the rules. Without DOM and without a state of its own: a session comes in, a new one goes out.
 *
 * @typedef {{transport: string, state: string, flags: string[], failures: number, limit: number, opened: boolean,
 *   previous: string}} Session
 * @typedef {Record<string, boolean>} Inputs what a step is given, by the names in `machine.inputs`
 * @typedef {{event: string, when: string[], unless: string[]}} Publication
 * @typedef {{number: number, source: string, trigger: string, dest: string, guards: string[], otherwise: boolean,
 *   publishes: Publication[], sets: string[], clears: string[], effects: string[], reason: string,
 *   transports: string[]}} Row
 * @typedef {{event: string, published: boolean, condition: string}} Event
 * @typedef {{row: Row, session: Session, events: Event[]}} Step
 */

/** Functions that return the count of failures after an effect, by its value in the table. */
const COUNTS = {
  "": (session) => session.failures,
  0: () => 0,
  "failures + 1": (session) => session.failures + 1,
  "limit + 1": (session) => session.limit + 1,
};

/** Tests of a guard, by what decides it. */
const TESTS = {
  transport: () => true, // a row has its transports
  flag: (of, session) => session.flags.includes(of),
  previous: (of, session) => session.previous === of,
  failures: (of, session) => session.failures >= session.limit,
  input: (of, session, inputs) => Boolean(inputs[of]),
};

/** Return a session in its first state. @returns {Session} */
export function newSession(table, transport, limit = table.machine.limit) {
  const { initial } = table.machine;
  return { transport, state: initial, flags: [], failures: 0, limit, opened: false, previous: initial };
}

/** Return the record of a name in a list of the table: `record(table.guards, "guard", name)`. */
function record(list, key, name) {
  return list.find((one) => one[key] === name);
}

/** Return the flags that no row sets: they follow from messages. */
export function inputFlags(table) {
  return table.flags.filter((one) => one.decided_by === "input");
}

/**
 * Return the rows that a trigger can take in a state, in order.
 * @returns {Row[]}
 */
export function rowsFor(table, transport, state, trigger) {
  return table.transitions.filter(
    (row) => row.source === state && row.trigger === trigger && row.transports.includes(transport),
  );
}

/** Return the guards of a row that the transport does not decide. */
export function openGuards(table, row) {
  return row.guards.filter((guard) => record(table.guards, "guard", guard).decided_by !== "transport");
}

/** Return whether all guards of a row hold. */
export function holds(table, row, session, inputs) {
  return row.guards.every((guard) => {
    const { decided_by: decider, of } = record(table.guards, "guard", guard);
    return TESTS[decider](of, session, inputs);
  });
}

/**
 * Take the row of a trigger; null where the state has none.
 * @param {Inputs} [inputs]
 * @param {Row} [given] the row to take in place of the first whose guards hold
 * @returns {Step|null}
 */
export function fire(table, session, trigger, inputs = {}, given = undefined) {
  const row = given ?? rowsFor(table, session.transport, session.state, trigger).find((one) => holds(table, one, session, inputs));
  if (!row) return null;
  const effects = row.effects.map((name) => record(table.effects, "effect", name));
  const begun = performed(session, effects.filter((one) => one.first));
  const events = publications(table, row, session.transport).map((one) => judged(table, one, begun, inputs));
  return { row, events, session: performed(moved(table, row, begun), effects.filter((one) => !one.first)) };
}

/** Return the session after effects. */
function performed(session, effects) {
  return effects.reduce((now, effect) => ({
    ...now,
    flags: now.flags.filter((flag) => !effect.clears.includes(flag)),
    failures: COUNTS[effect.failures](now),
  }), session);
}

/** Return the session in the state of a row, with the flags of the row set and cleared. */
function moved(table, row, session) {
  const { opened_by: opens, closed_by: closes } = table.machine;
  return {
    ...session,
    state: row.dest,
    flags: [...new Set([...session.flags, ...row.sets])].filter((flag) => !row.clears.includes(flag)),
    previous: row.dest === row.source ? session.previous : row.source,
    opened: row.trigger === opens || (session.opened && row.trigger !== closes),
  };
}

/** Return the publications of a row that a transport has, in order. */
export function publications(table, row, transport) {
  return row.publishes.filter((one) => record(table.events, "event", one.event).transports.includes(transport));
}

/** Return whether a publication is published, and its condition as a text. */
function judged(table, publication, session, inputs) {
  const isSet = (flag) => {
    const { decided_by: decider, variable } = record(table.flags, "flag", flag);
    return decider === "input" ? Boolean(inputs[variable]) : session.flags.includes(flag);
  };
  const { event, when, unless } = publication;
  const applies = (!when.length || when.some(isSet)) && !unless.some(isSet);
  const isContent = event === table.machine.content_event;
  return { event, published: isContent ? Boolean(inputs.content) : applies, condition: conditionOf(table, publication) };
}

/** Return the condition of a publication as a text, empty where there is none. */
export function conditionOf(table, { event, when, unless }) {
  if (event === table.machine.content_event) return "if the answer brings messages, after their own events";
  const words = (flags) => flags.map((flag) => flag.replaceAll("_", " ")).join(" or ");
  const parts = [when.length ? `if ${words(when)}` : "", unless.length ? `unless ${words(unless)}` : ""];
  return parts.filter(Boolean).join(", ");
}

/** Return the guards of a row as a text on a transport; `otherwise` where it has none, and an earlier row has some. */
export function guardText(table, row, transport) {
  const own = openGuards(table, row).join(" and ");
  if (own) return own;
  const earlier = rowsFor(table, transport, row.source, row.trigger).filter((one) => one.number < row.number);
  return earlier.length ? "otherwise" : "";
}

/** Return what gives a trigger on a transport: command, service, fact or failure. */
export function causeOf(table, trigger, transport) {
  return record(table.triggers, "trigger", trigger)?.causes[transport] ?? "fact";
}

/**
 * Return the text with which a user's command is refused, empty where it is legal.
 * @param {object} rule the record of the command
 * @param {boolean} [byService] whether the service itself gives it, which may do more than a user
 */
export function refusal(rule, state, transport, byService = false) {
  if (rule.unsupported[transport]) return rule.unsupported[transport];
  const denied = !byService && rule.private.includes(transport) ? rule.access : "";
  const illegal = rule.legal.includes(state) ? "" : (rule.refusals[state] ?? rule.refusal);
  return rule.state_first ? illegal || denied : denied || illegal;
}

/** Return the refusal of a command in a session: also where the service is not open and while endChat is in flight. */
export function refusalIn(table, rule, session, byService = false) {
  if (!session.opened && !rule.any_time) return table.machine.not_open;
  const state = session.flags.includes(table.machine.ending_flag) ? rule.while_ending : session.state;
  return refusal(rule, state, session.transport, byService);
}

/** Return the states that a session on a transport can be in. */
export function reachableStates(table, transport) {
  return table.states.filter((one) => one.reachable.includes(transport)).map((one) => one.state);
}
