/** Compares two transports: the view "Compare". */
import { publications, reachableStates, refusal } from "./machine.mjs";
import { address, h, link, section, table } from "./elements.mjs";
import { commandLink, destinations, stateLink } from "./rows.mjs";

/** Return the content of the view and the marks of the drawing. */
export function compare(app, place) {
  const names = app.table.transports.map((one) => one.transport);
  const other = names.includes(place.with) && place.with !== app.transport ? place.with : names.find((one) => one !== app.transport);
  const content = h("div", {},
    h("h2", {}, `What differs between ${app.transport} and ${other}`),
    choice(app, names, other),
    section("Commands", commandTable(app, other)),
    section("States", states(app, other)),
    section("Events", only(app, other, (transport) => app.table.events.filter((one) => one.transports.includes(transport)).map((one) => one.event),
      (event) => link({ ...app.here(), event }, event))),
    section("Triggers that take other rows", rowTable(app, other)),
    section("Same row, different events", publicationTable(app, other)));
  return { content, marks: {} };
}

function choice(app, names, other) {
  const go = (event) => { location.hash = address({ view: "compare", transport: app.transport, with: event.target.value }); };
  const options = names.filter((one) => one !== app.transport).map((one) => h("option", { value: one, selected: one === other }, one));
  return h("p", { class: "screen" }, h("label", {}, "Compare with ", h("select", { id: "with", onchange: go }, options)));
}

/** Return what only one of two lists has, as two labelled lists. */
function only(app, other, listFor, show) {
  const [mine, theirs] = [listFor(app.transport), listFor(other)];
  const lines = [[app.transport, mine.filter((one) => !theirs.includes(one))], [other, theirs.filter((one) => !mine.includes(one))]];
  if (lines.every(([, names]) => !names.length)) return h("p", { class: "none" }, "no difference");
  return h("ul", {}, lines.filter(([, names]) => names.length).map(([transport, names]) =>
    h("li", {}, `only ${transport}: `, names.flatMap((name, index) => [index ? ", " : "", show(name)]))));
}

function states(app, other) {
  return only(app, other, (transport) => reachableStates(app.table, transport), (state) => stateLink(app, state));
}

function commandTable(app, other) {
  const rows = app.table.commands.flatMap((rule) => commandRows(app, rule, other));
  if (!rows.length) return h("p", { class: "none" }, "no difference");
  return table("Commands that are answered differently", ["command", "states", app.transport, other], rows);
}

/** Return a line for each pair of different answers, with the states of both transports in which they are given. */
function commandRows(app, rule, other) {
  const shared = reachableStates(app.table, app.transport).filter((state) => reachableStates(app.table, other).includes(state));
  const byAnswers = new Map();
  for (const state of shared) {
    const answers = [app.transport, other].map((transport) => refusal(rule, state, transport));
    if (answers[0] === answers[1]) continue;
    const key = JSON.stringify(answers);
    byAnswers.set(key, { answers, states: [...(byAnswers.get(key)?.states ?? []), state] });
  }
  return [...byAnswers.values()].map(({ answers, states: where }) => [
    commandLink(app, rule.command), where.length === shared.length ? "all" : where.join(", "), ...answers.map(answer),
  ]);
}

function answer(text) {
  return text ? h("q", {}, text) : "legal";
}

/** Return a line for each state and trigger of which the transports take different rows, with all that each takes. */
function rowTable(app, other) {
  const different = app.table.transitions.filter((row) => row.transports.includes(app.transport) !== row.transports.includes(other));
  const pairs = new Map(different.map(({ source, trigger }) => [`${source} ${trigger}`, { source, trigger }]));
  if (!pairs.size) return h("p", { class: "none" }, "no difference");
  return table("States and triggers that take other rows on the other transport", ["from", "trigger", app.transport, other],
    [...pairs.values()].map((one) => [one.source, one.trigger, destinations(app.table, app.transport, one), destinations(app.table, other, one)]));
}

function publicationTable(app, other) {
  const rows = app.table.transitions.filter((row) => row.transports.includes(app.transport) && row.transports.includes(other));
  const eventsOf = (row, transport) => publications(app.table, row, transport).map((one) => one.event).join(", ");
  const different = rows.map((row) => ({ row, events: [app.transport, other].map((one) => eventsOf(row, one)) }))
    .filter(({ events }) => events[0] !== events[1]);
  if (!different.length) return h("p", { class: "none" }, "no difference");
  return table("Events of rows that both take", ["from", "trigger", app.transport, other], different.map(({ row, events }) =>
    [row.source, row.trigger, ...events.map((one) => one || "none")]));
}
