/** Shows rows of the table: where they lead, what they publish in order, and what else they do. */
import { causeOf, conditionOf, guardText, publications, rowsFor } from "./machine.mjs";
import { h, link } from "./elements.mjs";

/** Return a list of rows. `withSource` names the state in which each begins. */
export function rowList(app, rows, withSource = false) {
  if (!rows.length) return h("p", { class: "none" }, "none");
  return h("ul", { class: "rows" }, rows.map((row) => rowItem(app, row, withSource)));
}

function rowItem(app, row, withSource) {
  const guards = guardText(app.table, row, app.transport);
  return h(
    "li",
    { class: "row" },
    h("p", { class: "move" },
      withSource && [stateLink(app, row.source), " "],
      h("span", { class: causeOf(app.table, row.trigger, app.transport) }, link({ ...app.here(), trigger: row.trigger }, row.trigger)),
      guards && h("span", { class: "guard" }, ` ${guards}`),
      " \u2192 ",
      row.dest === row.source ? h("span", {}, "stays ", stateLink(app, row.dest)) : stateLink(app, row.dest)),
    eventList(app, row),
    h("p", { class: "also" }, also(row)),
    row.reason && h("p", { class: "reason" }, row.reason),
  );
}

/** Return the destinations of a trigger in a state on a transport, with the guards and the events of each. */
export function destinations(table, transport, { source, trigger }) {
  const rows = rowsFor(table, transport, source, trigger);
  if (!rows.length) return "does not come";
  return rows.map((row) => {
    const guards = guardText(table, row, transport);
    const dest = row.dest === source ? `stays ${source}` : `to ${row.dest}`;
    const events = publications(table, row, transport).map((one) => one.event).join(", ");
    return h("div", {}, dest, guards && h("span", { class: "guard" }, ` ${guards}`), events && h("span", { class: "also" }, `, publishes ${events}`));
  });
}

export function stateLink(app, state) {
  return link({ ...app.here(), state }, h("b", {}, state));
}

export function commandLink(app, command) {
  return link({ ...app.here(), command }, command);
}

function eventList(app, row) {
  const published = publications(app.table, row, app.transport);
  if (!published.length) return h("p", { class: "also" }, "publishes nothing");
  return h("ol", { class: "events", "aria-label": "events in order" }, published.map((one) => eventItem(app, one)));
}

function eventItem(app, publication) {
  const condition = conditionOf(app.table, publication);
  return h("li", {}, link({ ...app.here(), event: publication.event }, publication.event),
    condition && h("span", { class: "condition" }, ` ${condition}`));
}

/** Return the flags and effects of a row as a text. */
export function also(row) {
  const words = (flags) => flags.map((flag) => flag.replaceAll("_", " ")).join(", ");
  const parts = [
    row.sets.length ? `sets ${words(row.sets)}` : "",
    row.clears.length ? `clears ${words(row.clears)}` : "",
    ...row.effects,
  ];
  return [...parts.filter(Boolean), `row ${row.number}`].join("; ");
}
