/** Shows the moments of a recording on a line of time, with the state at each of them: the view "Play back". */
import { KINDS, RecordingError, folded, readRecording, span } from "./recording.mjs";
import { address, fill, h } from "./elements.mjs";

/** Steps of the slider; a second of folded time has as many as there is room for. */
const SLIDER = 1000;

/**
 * Moments that are played back, and what the filter shows of them.
 * @typedef {{moments: import("./recording.mjs").Moments|null, problem: string, warning: string, hidden: Set<string>,
 *   routine: boolean}} Player `hidden` has the kinds that are not shown, `routine` shows polls that brought nothing
 */
export function makePlayer() {
  return { moments: null, problem: "", warning: "", hidden: new Set(), routine: false };
}

/** Read the text of a file into a player; a malformed one leaves its problem. */
export function load(player, text, name = "") {
  const prefix = name ? `${name}: ` : "";
  refuse(player, "");
  try {
    const read = readRecording(text);
    player.moments = read.moments;
    player.warning = read.warning && `${prefix}${read.warning}`;
  } catch (error) {
    if (!(error instanceof RecordingError)) throw error;
    player.problem = `${prefix}${error.message}`;
  }
}

/** Leave the problem of a file that cannot be read; what was played back before is shown no more. */
export function refuse(player, problem) {
  player.moments = null;
  player.warning = "";
  player.problem = problem;
}

/** Return the content of the view and the marks of the drawing. */
export function playback(app, place) {
  const { player } = app;
  if (!player.moments) return { content: h("div", {}, h("h2", {}, "Play back"), picker(app)), marks: {} };
  const shown = player.moments.all.map((moment, index) => ({ ...moment, index })).filter((one) => isShown(player, one));
  const at = position(shown, Number.parseInt(place.at ?? "0", 10));
  const view = { app, player, shown, at, line: folded(shown) };
  const content = h("div", { class: "playback" }, h("h2", {}, "Play back", h("small", {}, ` ${player.moments.transport}`)),
    player.warning && h("p", { class: "problem" }, player.warning),
    filter(view), shown.length ? [slider(view), moment(view), list(view)] : h("p", {}, "The filter shows nothing."), picker(app));
  return { content, marks: { current: shown[at]?.state }, transport: player.moments.transport };
}

function isShown(player, one) {
  return !player.hidden.has(one.kind) && (player.routine || !one.routine);
}

/** Return the place in the shown moments of a number among all: that of the last one before it, if it is hidden. */
function position(shown, wanted) {
  const number = Number.isNaN(wanted) ? 0 : wanted;
  return Math.max(0, shown.findLastIndex((one) => one.index <= number));
}

function go({ app, shown }, at) {
  const next = shown[Math.min(Math.max(at, 0), shown.length - 1)];
  app.replace({ view: "playback", at: next.index });
}

// -- opening a file ----------------------------------------------------------------------------------------------------

function picker(app) {
  const { player } = app;
  return h("div", { class: "drop" },
    player.problem && h("p", { class: "problem", role: "alert" }, player.problem),
    h("label", {}, "Open a recording (or drop it on the page): ",
      h("input", { type: "file", id: "file", accept: ".jsonl,.json,.txt", onchange: (event) => app.openFile(event.target.files[0]) })),
    h("p", { class: "also" }, "A file of JSON Lines written by webchat_fsm.testing.Recorder. It stays on this machine: the page can send nothing."));
}

// -- the line of time --------------------------------------------------------------------------------------------------

function slider(view) {
  const { line, at, shown } = view;
  const scale = line.length ? SLIDER / line.length : 0;
  const input = h("input", {
    type: "range", id: "time", min: 0, max: SLIDER, step: 1, value: Math.round(line.places[at] * scale), "aria-label": "time",
    "aria-valuetext": valueText(view), oninput: (event) => go(view, nearest(line.places, scale ? event.target.value / scale : 0)),
  });
  input.addEventListener("keydown", (event) => steps(event, view));
  const since = shown[at].time - shown[0].time;
  return h("div", { class: "time" }, track(view),
    input,
    h("p", { class: "controls" },
      h("button", { type: "button", id: "back", disabled: at === 0, onclick: () => go(view, at - 1) }, "Back"),
      h("button", { type: "button", id: "forward", disabled: at === shown.length - 1, onclick: () => go(view, at + 1) }, "Forward"),
      h("span", {}, `${at + 1} of ${shown.length}, ${span(since)} after the beginning `),
      h("a", { href: address({ view: "playback", at: shown[at].index }), id: "moment-link" }, "link to this moment")));
}

/** Arrow keys step by moments, page keys by ten; the slider's own steps are of folded time. */
function steps(event, view) {
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  go(view, view.at + by);
}

function valueText({ shown, at }) {
  const one = shown[at];
  return `${span(one.time - shown[0].time)}: ${one.kind} ${one.title}, state ${one.state}`;
}

/** Return the number of the last moment at or before a place. */
function nearest(places, place) {
  return Math.max(0, places.findLastIndex((one) => one <= place + 1e-9));
}

function track({ line, shown }) {
  const part = (place) => `${line.length ? (100 * place) / line.length : 0}%`;
  const mark = (one, index) => at(h("i", { class: `mark ${one.kind}` }), part(line.places[index]));
  const fold = (one) => at(h("b", { class: "fold", title: `${span(one.seconds)} without anything new` }, span(one.seconds)), part(one.place));
  return h("div", { class: "track", "aria-hidden": "true" }, shown.map(mark), line.folds.map(fold));
}

function at(element, left) {
  element.style.left = left;
  return element;
}

// -- the moments -------------------------------------------------------------------------------------------------------

function filter({ app, player }) {
  const change = (kind) => (event) => {
    if (event.target.checked) player.hidden.delete(kind);
    else player.hidden.add(kind);
    app.render();
  };
  const box = (id, checked, onchange, text) => h("label", {}, h("input", { type: "checkbox", id, checked, onchange }), ` ${text}`);
  const setRoutine = (event) => { player.routine = event.target.checked; app.render(); };
  const routine = player.moments.all.filter((one) => one.routine && one.kind === "answer").length;
  const count = (kind) => player.moments.all.filter((one) => one.kind === kind && (player.routine || !one.routine)).length;
  return h("fieldset", { class: "filter" }, h("legend", {}, "Show"), KINDS.map((kind) =>
    box(`show-${kind}`, !player.hidden.has(kind), change(kind), `${kind}s (${count(kind)})`)),
    box("show-routine", player.routine, setRoutine, `polls that brought nothing (${routine})`));
}

function moment({ shown, at: here }) {
  const one = shown[here];
  return h("section", { class: "moment", "aria-label": "the chosen moment" },
    h("p", { role: "status", id: "moment" }, h("span", { class: `kind ${one.kind}` }, one.kind), " ", h("b", {}, one.title), " ", one.detail,
      h("span", { class: "state-at" }, ` state ${one.state}`)),
    h("details", {}, h("summary", {}, "The line of the recording"), h("pre", { tabindex: "0" }, JSON.stringify(one.line, null, 1))));
}

/** Moments that are listed at most, around the chosen one: a browser shows thousands of them slowly. */
const LISTED = 400;

function list(view) {
  const { shown, at: here, line } = view;
  const first = Math.max(0, Math.min(here - LISTED / 2, shown.length - LISTED));
  const folds = new Map(line.folds.map((one) => [one.before, one.seconds]));
  const items = shown.slice(first, first + LISTED).flatMap((one, offset) => entry(view, one, first + offset, folds));
  const body = h("ol", { class: "moments", id: "moments" });
  fill(body, items);
  const left = shown.length - items.length;
  return h("div", {}, left > 0 && shown.length > LISTED && h("p", { class: "also" }, `${LISTED} of ${shown.length} are listed, around the chosen one.`), body);
}

function entry(view, one, index, folds) {
  const silent = folds.get(index);
  const item = h("li", { class: index === view.at ? "chosen" : "" },
    h("button", { type: "button", "data-moment": one.index, "aria-current": index === view.at && "true", onclick: () => go(view, index) },
      h("span", { class: "when" }, (one.time - view.shown[0].time).toFixed(2)), h("span", { class: `kind ${one.kind}` }, one.kind),
      h("span", { class: "what" }, h("b", {}, one.title), " ", one.detail)));
  return silent === undefined ? [item] : [h("li", { class: "silence" }, `${span(silent)} without anything new`), item];
}
