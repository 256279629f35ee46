/** Shows a state, a command, an event or a trigger on one transport; without one of them, an overview: "Explore". */
import { causeOf, inputFlags, reachableStates, refusal } from "./machine.mjs";
import { h, link, links, section, table } from "./elements.mjs";
import { commandLink, rowList, stateLink } from "./rows.mjs";

/** Return the content of the view and the marks of the drawing. */
export function explore(app, place) {
  const kind = ["state", "command", "event", "trigger"].find((one) => place[one]);
  if (!kind) return { content: overview(app), marks: {} };
  return { state: ofState, command: ofCommand, event: ofEvent, trigger: ofTrigger }[kind](app, place[kind]);
}

function unknown(kind, name) {
  return { content: h("p", { class: "problem" }, `There is no ${kind} "${name}". Choose one in the drawing, or search.`), marks: {} };
}

// -- the overview ------------------------------------------------------------------------------------------------------

/** Return questions with the places that answer them, for the transport that is chosen. */
function questions({ transport }) {
  const explored = (place, text) => ({ place: { view: "explore", transport, ...place }, text });
  const other = transport === "v2" ? "v3" : "v2";
  return [
    explored({ state: "offline" }, `Which commands are legal while offline on ${transport}?`),
    explored({ trigger: "poll answered" }, `What fires, in order, when the server comes back on ${transport}?`),
    explored({ command: "restore" }, `Why was restore rejected on ${transport}?`),
    { place: { view: "compare", transport, with: other }, text: `What differs between ${transport} and ${other}?` },
  ];
}

function overview(app) {
  const here = (place) => ({ view: "explore", transport: app.transport, ...place });
  return h("div", {},
    h("h2", {}, "The lifecycle of a chat session"),
    h("p", { class: "screen" }, "Choose a state or a trigger in the drawing, where boxes and the texts at arrows can be clicked; or, below or by the search, ",
      "a state, a command, an event or a trigger. Everything is shown for the transport that is chosen above."),
    h("div", { class: "screen" },
      section("Questions, for example", h("ul", {}, questions(app).map(({ place, text }) => h("li", {}, link(place, text)))))),
    section("States", links(reachableStates(app.table, app.transport), (state) => here({ state }))),
    section("Commands", links(app.table.commands.map((one) => one.command), (command) => here({ command }))),
    section("Events", links(eventsOf(app).map((one) => one.event), (event) => here({ event }))),
    section("Triggers", h("p", {}, "A trigger is an input of the table: a command, or what an answer, a timer or a caller has done."),
      links(triggersOf(app), (trigger) => here({ trigger }))));
}

function eventsOf(app) {
  return app.table.events.filter((one) => one.transports.includes(app.transport));
}

function rowsOf(app) {
  return app.table.transitions.filter((row) => row.transports.includes(app.transport));
}

function triggersOf(app) {
  return [...new Set(rowsOf(app).map((row) => row.trigger))];
}

// -- a state -----------------------------------------------------------------------------------------------------------

function ofState(app, name) {
  const state = app.table.states.find((one) => one.state === name);
  if (!state) return unknown("state", name);
  if (!state.reachable.includes(app.transport)) {
    const text = `A session on ${app.transport} is never ${name}. The state exists on ${state.reachable.join(", ")}.`;
    return { content: h("div", {}, h("h2", {}, name), h("p", {}, text)), marks: {} };
  }
  const rows = rowsOf(app).filter((row) => row.source === name);
  const judged = app.table.commands.map((rule) => ({ rule, text: refusal(rule, name, app.transport) }));
  const legal = judged.filter((one) => !one.text).map((one) => one.rule.command);
  const content = h("div", {},
    h("h2", {}, name, h("small", {}, ` on ${app.transport}`)),
    h("p", {}, state.meaning),
    section(`Legal commands (${legal.length})`, links(legal, (command) => ({ ...app.here(), command }))),
    section("What can fire, and where it leads", rowList(app, rows)),
    section("Why not the others", table(`Commands that are rejected in ${name} on ${app.transport}`, ["command", "text of the rejection"],
      judged.filter((one) => one.text).map(({ rule, text }) => [commandLink(app, rule.command), h("q", {}, text)]))));
  return { content, marks: { current: name, from: name } };
}

// -- a command ---------------------------------------------------------------------------------------------------------

function ofCommand(app, name) {
  const rule = app.table.commands.find((one) => one.command === name);
  if (!rule) return unknown("command", name);
  const states = reachableStates(app.table, app.transport);
  const legal = states.filter((state) => !refusal(rule, state, app.transport));
  const refused = states.filter((state) => !legal.includes(state));
  const content = h("div", {},
    h("h2", {}, name, h("small", {}, ` on ${app.transport}`)),
    h("p", {}, "In Python ", h("code", {}, `chat.${rule.method}(...)`), rule.extra ? "; the reference has no such command." : "."),
    access(app, rule),
    section(legal.length ? `Legal in ${legal.length} of ${states.length} states` : "Legal in no state",
      legal.length ? links(legal, (state) => ({ ...app.here(), state })) : null),
    refused.length > 0 && section("Rejected by the state", table(`Rejections of ${name} by state`, ["state", "text of the rejection"],
      refused.map((state) => [stateLink(app, state), h("q", {}, refusal(rule, state, app.transport))]))),
    section("Rejected by circumstances", table(`Rejections of ${name} by circumstances`, ["circumstance", "text of the rejection"], circumstances(app, rule))),
    section("Rows of the table", rowList(app, rowsOf(app).filter((row) => row.trigger === name), true)));
  return { content, marks: { states: legal, trigger: name } };
}

/** Return what the texts of a command leave open: who may give it, and which text is given of two. */
function access(app, rule) {
  const { transport, table: { transports } } = app;
  const notes = [];
  if (rule.access && rule.private.includes(transport)) {
    const others = transports.map((one) => one.transport).filter((one) => !rule.private.includes(one));
    const taken = rowsOf(app).some((row) => row.trigger === rule.command) ? ", as in the rows below" : "";
    notes.push(`Private on ${transport}: only the service itself gives this command${taken}.`);
    if (others.length) notes.push(`"Non-Async mode" is every transport but ${others.join(", ")}.`);
    notes.push(rule.state_first
      ? "Where the state does not allow it either, the text of the state is given."
      : "A user's command is rejected with this text in every state.");
  }
  if (!rule.unsupported[transport] && Object.values(rule.unsupported).includes(rule.refusal)) {
    notes.push("The reference has one text for two cases: no chat session is open, and the transport has no such command.");
  }
  return notes.length > 0 && h("p", { class: "access" }, notes.join(" "));
}

function circumstances(app, rule) {
  const { polls } = app.table.transports.find((one) => one.transport === app.transport);
  const further = { ...app.further.refusals[rule.command], ...(polls ? {} : app.further.pushed[rule.command]) };
  const leaving = refusal(rule, rule.while_ending, app.transport);
  const always = "works";
  return [
    ["before open() and after close()", rule.any_time ? always : h("q", {}, app.table.machine.not_open)],
    ["while endChat is in flight", leaving ? h("q", {}, leaving) : always],
    ...(rule.text_first ? [["there is no text; asked before the state", h("q", {}, app.table.machine.no_text)]] : []),
    ...Object.entries(further).map(([when, text]) => [when, h("q", {}, text)]),
  ];
}

// -- an event and a trigger --------------------------------------------------------------------------------------------

function ofEvent(app, name) {
  const event = app.table.events.find((one) => one.event === name);
  if (!event) return unknown("event", name);
  const rows = rowsOf(app).filter((row) => event.transitions.includes(row.number));
  const here = event.transports.includes(app.transport);
  const content = h("div", {},
    h("h2", {}, name, h("small", {}, ` on ${app.transport}`)),
    h("p", {}, event.meaning),
    h("p", {}, `Payload: ${event.payload ?? "none"}. On ${event.transports.join(", ")}.`),
    !here && h("p", { class: "problem" }, `${app.transport} has no such event.`),
    here && section("Published by", event.from_messages && fromMessages(app, rows), rows.length > 0 && rowList(app, rows, true)));
  return { content, marks: here ? { states: [...new Set(rows.map((row) => row.source))] } : {} };
}

function fromMessages(app, rows) {
  const further = rows.length ? ", and by these rows" : "";
  return h("p", {}, `messages, just before the ${app.table.machine.content_event} that contains the message${further}.`);
}

function ofTrigger(app, name) {
  const trigger = app.table.triggers.find((one) => one.trigger === name);
  if (!trigger) return unknown("trigger", name);
  const rows = rowsOf(app).filter((row) => row.trigger === name);
  const flags = [...new Set(rows.flatMap((row) => row.publishes.flatMap((one) => [...one.when, ...one.unless])))];
  const messages = inputFlags(app.table).map((one) => one.flag).filter((flag) => flags.includes(flag));
  const content = h("div", {},
    h("h2", {}, name, h("small", {}, ` on ${app.transport}`)),
    h("p", {}, `A trigger: ${app.further.legend[causeOf(app.table, name, app.transport)]}.`),
    h("p", {}, "Of several rows for one state the first whose guards hold is taken. ",
      "Its events are published in order, those with a condition only where it held before."),
    messages.length > 0 && h("p", {}, `Set by messages, not by rows: ${messages.join(", ")}.`),
    section("Rows, by state", rowList(app, rows, true)),
    ofMessages(app, rows));
  return { content, marks: { states: [...new Set(rows.map((row) => row.source))], trigger: name } };
}

/** Return the events that messages bring, where rows deliver messages. */
function ofMessages(app, rows) {
  const content = app.table.machine.content_event;
  if (!rows.some((row) => row.publishes.some((one) => one.event === content))) return null;
  const brought = eventsOf(app).filter((one) => one.from_messages).map((one) => one.event);
  return section("Events of the messages", h("p", {}, `Where an answer brings messages, each publishes its own event just before ${content}:`),
    links(brought, (event) => ({ ...app.here(), event })));
}

// -- search ------------------------------------------------------------------------------------------------------------

/**
 * Return what a text is found in, the best first: names, then texts of rejections, then meanings.
 * @returns {{place: object, kind: string, name: string, why: string}[]}
 */
export function search(app, text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const has = (value) => value.toLowerCase().includes(wanted);
  const found = [];
  const add = (rank, kind, name, why) => found.push({ rank, kind, name, why, place: { view: "explore", transport: app.transport, [kind]: name } });
  for (const { place, text } of questions(app)) if (has(text)) found.push({ rank: 2, kind: "question", name: text, why: "", place });
  for (const { kind, name, about } of entries(app)) {
    if (has(name)) add(name.toLowerCase() === wanted ? 0 : 1, kind, name, about);
    else if (has(about)) add(3, kind, name, about);
  }
  for (const rule of app.table.commands) {
    const why = textsOf(app, rule).find(has);
    if (why) add(2, "command", rule.command, `rejected: ${why}`);
  }
  return found.toSorted((one, other) => one.rank - other.rank);
}

function entries(app) {
  return [
    ...app.table.states.map((one) => ({ kind: "state", name: one.state, about: one.meaning })),
    ...app.table.commands.map((one) => ({ kind: "command", name: one.command, about: `chat.${one.method}()` })),
    ...app.table.events.map((one) => ({ kind: "event", name: one.event, about: one.meaning })),
    ...app.table.triggers.map((one) => ({ kind: "trigger", name: one.trigger, about: app.further.legend[causeOf(app.table, one.trigger, app.transport)] })),
  ];
}

function textsOf(app, rule) {
  const further = [app.further.refusals, app.further.pushed].flatMap((texts) => Object.values(texts[rule.command] ?? {}));
  const own = [rule.refusal, rule.access, ...Object.values(rule.refusals), ...Object.values(rule.unsupported)];
  const { no_text: noText, not_open: notOpen } = app.table.machine;
  return [...own, ...further, rule.text_first ? noText : "", rule.any_time ? "" : notOpen].filter(Boolean);
}
