/** Walks through the table step by step, and copies the walk as a pytest test: the view "Simulate". */
import { causeOf, guardText, inputFlags, openGuards, refusalIn } from "./machine.mjs";
import { choices, flagsOf, make, newWorld, possible, replay, triggersWithoutHappening, WalkError } from "./walk.mjs";
import { asPytest } from "./pytest_copy.mjs";
import { address, fill, h, section } from "./elements.mjs";
import { also } from "./rows.mjs";

const LEAST = 0;
const MOST = 99;
const DEFAULT_LIMIT = 1;

/** Return the content of the view and the marks of the drawing. */
export function simulate(app, place) {
  const problem = place.limit === undefined ? "" : problemOf(place.limit);
  const limit = place.limit === undefined || problem ? DEFAULT_LIMIT : Number(place.limit);
  const moves = movesOf(place.walk ?? "");
  let legs;
  try {
    legs = replay(app.table, app.transport, limit, moves);
  } catch (error) {
    if (!(error instanceof WalkError)) throw error;
    return { content: broken(app, limit, moves, error), marks: {} };
  }
  const world = legs.at(-1)?.after ?? newWorld(app.table, app.transport, limit);
  const view = { app, limit, problem, moves, legs, world };
  const content = h("div", { class: "simulation" },
    h("h2", {}, "Simulate", h("small", {}, ` on ${app.transport}`)),
    now(view), controls(view), happenings(view), walkSoFar(view), copy(view), singleRows(view), rejected(view));
  return { content, marks: { current: world.state, from: world.state } };
}

/** Return why a text is no pollExceptionLimit, empty where it is one. */
function problemOf(text) {
  return /^\d{1,2}$/.test(text) ? "" : `pollExceptionLimit is a whole number from ${LEAST} to ${MOST}, and not "${text}"`;
}

/** Return what is shown for a walk that the transport or the limit makes impossible: what remains of it, and a new one. */
function broken(app, limit, moves, error) {
  const place = { view: "simulate", transport: app.transport, limit };
  const kept = possiblePart(app, limit, moves);
  return h("div", {}, h("h2", {}, "Simulate"),
    h("p", { class: "problem", role: "alert" },
      `This walk is none of ${app.transport} with pollExceptionLimit ${limit}: ${error.message}. Choose another transport, or `,
      kept.length > 0 && [h("a", { id: "keep", href: address({ ...place, walk: walkOf(kept) }) }, `keep its first ${kept.length} steps`), ", or "],
      h("a", { href: address(place) }, "start over"), "."));
}

/** Return the moves before the first one that is impossible. */
function possiblePart(app, limit, moves) {
  let world = newWorld(app.table, app.transport, limit);
  for (const [index, move] of moves.entries()) {
    try {
      world = make(app.table, world, move).after;
    } catch (error) {
      if (!(error instanceof WalkError)) throw error;
      return moves.slice(0, index);
    }
  }
  return moves;
}

// -- the walk in the address -------------------------------------------------------------------------------------------

/** Read the moves of an address: `open.start.poll-silent`, a single row as `r31`, an assumption as `+agent_in`. */
function movesOf(text) {
  return text.split(".").filter(Boolean).map((part) => {
    if (/^r\d+$/.test(part)) return { row: Number(part.slice(1)) };
    if (/^[+-]/.test(part)) return { assume: part.slice(1), value: part.startsWith("+") };
    return { happening: part };
  });
}

function textOf(move) {
  if ("row" in move) return `r${move.row}`;
  return "assume" in move ? `${move.value ? "+" : "-"}${move.assume}` : move.happening;
}

function walkOf(moves) {
  return moves.map(textOf).join(".");
}

function go({ app, limit }, moves) {
  app.push({ view: "simulate", transport: app.transport, limit, walk: walkOf(moves) });
}

// -- the parts of the view ---------------------------------------------------------------------------------------------

function now({ app, world, legs }) {
  const last = legs.at(-1);
  const events = last ? published(last) : [];
  const facts = [
    ["state", h("b", { id: "state-now" }, world.state)],
    ["flags", flagsOf(app.table, world).map((flag) => flag.replaceAll("_", " ")).join(", ") || "none"],
    ["failures in a row", `${world.failures}, offline above ${world.limit}`],
    ["saved session", world.inputs.restorable ? "yes" : "no"],
    ["service", world.opened ? "open" : "closed"],
  ];
  return h("div", { class: "now", role: "status" },
    h("dl", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    last && h("p", {}, `${last.label}: ${events.length ? `published ${events.join(", ")}` : "nothing published"}`));
}

function published(leg) {
  return leg.steps.flatMap((step) => step.events.filter((one) => one.published).map((one) => one.event));
}

function controls(view) {
  const { moves, limit, app } = view;
  const alert = h("span", { id: "limit-problem", class: "failure", role: "alert" }, view.problem);
  const setLimit = ({ target }) => {
    const problem = problemOf(target.value);
    fill(alert, problem);
    if (!problem) app.push({ view: "simulate", transport: app.transport, limit: target.value, walk: walkOf(moves) });
  };
  return h("p", { class: "controls" },
    h("button", { type: "button", id: "undo", disabled: !moves.length, onclick: () => go(view, moves.slice(0, -1)) }, "Undo"),
    h("button", { type: "button", id: "restart", disabled: !moves.length, onclick: () => go(view, []) }, "Start over"),
    h("label", {}, "pollExceptionLimit ", h("input", {
      type: "number", id: "limit", min: LEAST, max: MOST, value: limit, "aria-describedby": "limit-problem", onchange: setLimit,
    })), alert);
}

function happenings(view) {
  const offered = possible(view.app.table, view.world);
  const groups = [...new Set(offered.map((one) => one.group))];
  const button = (one) => h("button", { type: "button", "data-happening": one.id, onclick: () => go(view, [...view.moves, { happening: one.id }]) }, one.label);
  return section("What happens next", groups.map((group) =>
    h("div", { class: "group", role: "group", "aria-label": group }, h("h4", {}, group), offered.filter((one) => one.group === group).map(button))));
}

function singleRows(view) {
  const offered = choices(view.app.table, view.world);
  const take = (row) => go(view, [...view.moves, { row: row.number }]);
  const triggers = [...new Set(offered.map(({ row }) => row.trigger))];
  const line = (trigger) => {
    const rows = offered.filter(({ row }) => row.trigger === trigger);
    return h("li", {}, h("span", { class: causeOf(view.app.table, trigger, view.app.transport) }, trigger), " ", rows.map(({ row, taken }, index) =>
      h("button", { type: "button", "data-row": row.number, class: taken ? "taken" : "", onclick: () => take(row) },
        rowLabel(view.app, rows.map((one) => one.row), index), taken && rows.length > 1 && h("span", { class: "hint" }, " (as it is now)"))));
  };
  const { isOpen, keepOpen } = view.app;
  return h("details", { id: "single-rows", class: "screen", open: isOpen("single-rows"), ontoggle: keepOpen },
    h("summary", {}, "Single rows, by trigger and guard"),
    h("p", {}, "A row is a line of the table, numbered as in lifecycle.md. ",
      "Each answer to a guard can be chosen, also one that the count and the flags would not give."),
    h("ul", { class: "choices" }, triggers.map(line)), assumptions(view));
}

/** Return the question of a row's guards with its answer, and where the row leads. */
function rowLabel({ table, transport }, rows, index) {
  const row = rows[index];
  const earlier = rows.slice(0, index).map((one) => openGuards(table, one).join(" and ")).filter(Boolean);
  const asked = openGuards(table, row).length ? `${guardText(table, row, transport)}? yes` : earlier.length ? `${earlier.join(", ")}? no` : "";
  return `${asked} \u2192 ${row.dest}`.trim();
}

function assumptions(view) {
  const { app, world, moves } = view;
  const set = (variable) => (event) => go(view, [...moves, { assume: variable, value: event.target.checked }]);
  return h("fieldset", {}, h("legend", {}, "Set by messages"), inputFlags(app.table).map(({ flag, variable }) =>
    h("label", {}, h("input", { type: "checkbox", id: `assume-${variable}`, checked: world.inputs[variable], onchange: set(variable) }), ` ${flag}`)));
}

function rejected({ app, world }) {
  const judged = app.table.commands.map((rule) => [rule.command, refusalIn(app.table, rule, world)]).filter(([, text]) => text);
  return h("details", { id: "rejected", open: app.isOpen("rejected"), ontoggle: app.keepOpen },
    h("summary", {}, `Commands that are rejected now (${judged.length})`),
    h("ul", {}, judged.map(([command, text]) => h("li", {}, `${command}: `, h("q", {}, text)))));
}

// -- the walk so far ---------------------------------------------------------------------------------------------------

function walkSoFar({ app, legs }) {
  if (!legs.length) return section("The walk", h("p", { class: "none" }, "no step yet: begin with open()"));
  const items = legs.map(({ label, steps }) => h("li", {}, h("b", {}, label), steps.map((step) => taken(app, step)),
    !steps.length && h("p", { class: "also" }, "no row is taken")));
  return section("The walk, latest step first", h("ol", { reversed: true, class: "walk" }, items.toReversed()));
}

function taken(app, step) {
  const { row, events } = step;
  const guards = guardText(app.table, row, app.transport);
  return h("div", { class: "taken-row" },
    h("p", {}, h("span", { class: causeOf(app.table, row.trigger, app.transport) }, row.trigger), guards && h("span", { class: "guard" }, ` ${guards}`),
      ` ${row.source} \u2192 ${row.dest}`),
    events.length > 0 && h("ol", { class: "events" }, events.map(({ event, published: isPublished, condition }) =>
      h("li", { class: isPublished ? "published" : "silent" }, event, conditionNote(isPublished, condition)))),
    h("p", { class: "also" }, also(row)));
}

function conditionNote(isPublished, condition) {
  return h("span", { class: "condition" }, isPublished ? condition && ` ${condition}` : ` not published: ${condition}`);
}

// -- copy --------------------------------------------------------------------------------------------------------------

/** Triggers without a line of Python, by transport: kept, as the search goes through all that can happen. */
const withoutHappening = new Map();

function missingOn({ table, transport }) {
  if (!withoutHappening.has(transport)) withoutHappening.set(transport, triggersWithoutHappening(table, transport));
  return withoutHappening.get(transport);
}

function copy({ app, legs }) {
  const result = asPytest(app.table, legs);
  const missing = missingOn(app);
  const note = missing.length > 0 && h("p", { class: "also" },
    "The test runs with webchat_fsm.testing, the test kit of the library. ",
    `On ${app.transport} the kit makes no line for these triggers, so that a walk with one of them cannot be copied: ${missing.join(", ")}.`);
  if ("refusal" in result) return section("Copy as pytest", h("p", { id: "no-copy" }, `Not possible: ${result.refusal}.`), note);
  const code = h("textarea", { id: "pytest", readonly: true, rows: 14, spellcheck: "false", "aria-label": "The walk as a pytest test" }, result.code);
  const done = h("span", { role: "status", id: "copied" });
  return section("Copy as pytest",
    h("p", { class: "screen" },
      h("button", { type: "button", id: "copy", onclick: () => toClipboard(code, done) }, "Copy as pytest"), " ", done),
    code, h("pre", { class: "paper" }, result.code), note);
}

async function toClipboard(code, done) {
  code.select();
  try {
    await navigator.clipboard.writeText(code.value);
    done.textContent = "copied";
  } catch {
    done.textContent = "selected: press Ctrl+C"; // the browser allows no copying by the page
  }
}
