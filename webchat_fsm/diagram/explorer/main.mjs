/** Reads the address of the page, shows the view that it names, and keeps what no address holds. */
import { fill, address, h, link, placeOf } from "./elements.mjs";
import { isNarrow, makeDiagram, makeTools, reveal } from "./diagram.mjs";
import { explore, search } from "./explore.mjs";
import { compare } from "./compare.mjs";
import { simulate } from "./simulate.mjs";
import { load, makePlayer, playback, refuse } from "./playback.mjs";
import { followLive, live, makeLive } from "./live.mjs";

const VIEWS = {
  explore: { title: "Explore", show: explore },
  compare: { title: "Compare", show: compare },
  simulate: { title: "Simulate", show: simulate },
  playback: { title: "Play back", show: playback },
};
const RESULTS = 12;

const element = (id) => document.getElementById(id);
const json = (id) => JSON.parse(element(id).textContent);

const app = {
  table: json("lifecycle"),
  further: json("further"),
  transport: "v2",
  player: makePlayer(),
  opened: new Set(),
  here: () => ({ view: "explore", transport: app.transport }),
  isOpen: (id) => app.opened.has(id),
  keepOpen: (event) => (event.target.open ? app.opened.add(event.target.id) : app.opened.delete(event.target.id)),
  replace,
  push,
  render,
  openFile,
  showState: (state) => {
    diagram.show(app.transport, { current: state });
    reveal(element("drawings"), state);
  },
};

const diagram = makeDiagram(element("drawings"), (state) => { location.hash = address({ ...app.here(), state }); });

const showTools = makeTools(element("drawings"), element("zoom"), element("fold"));

/** Go to a place without an entry in the history of the browser, and keep the focus where it is. */
function replace(place) {
  history.replaceState(null, "", address(place));
  render();
}

/** Go to a place with an entry, so that "Back" of the browser undoes it, and keep the focus where it is. */
function push(place) {
  history.pushState(null, "", address(place));
  render();
}

/** Show the place that the address names. */
function render() {
  const place = placeOf(location.hash);
  const name = Object.hasOwn(VIEWS, place.view ?? "") ? place.view : "explore";
  const transports = app.table.transports.map((one) => one.transport);
  if (transports.includes(place.transport)) app.transport = place.transport;
  const problems = unknownOf(place, transports);
  const focused = focusMark();
  const shown = VIEWS[name].show(app, place);
  if (shown.transport && transports.includes(shown.transport)) app.transport = shown.transport;
  fill(element("view"), problems.map((text) => h("p", { class: "problem" }, text)), shown.content);
  showTools(name);
  diagram.show(app.transport, shown.marks);
  if (shown.marks.current) reveal(element("drawings"), shown.marks.current);
  element("layout").dataset.view = name;
  element("figure").dataset.transport = app.transport; // its heading on paper, where no choice is shown
  showViews(name);
  showTransports(name, place);
  restoreFocus(focused);
  if (name === "playback") revealMoment();
}

/** Return what an address names that does not exist. */
function unknownOf(place, transports) {
  const problems = [];
  if (place.view && !Object.hasOwn(VIEWS, place.view)) problems.push(`There is no view "${place.view}": this is "explore".`);
  if (place.transport && !transports.includes(place.transport)) problems.push(`There is no transport "${place.transport}": this is ${app.transport}.`);
  return problems;
}

/** Scroll the list to the chosen moment, and not the page. */
function revealMoment() {
  const chosen = document.querySelector(".moments .chosen");
  if (chosen) chosen.parentElement.scrollTop = chosen.offsetTop - chosen.parentElement.clientHeight / 2;
}

/** Return a selector of the focused element, as the view is made anew. */
function focusMark() {
  const focused = document.activeElement;
  if (!focused || !element("view").contains(focused)) return "";
  for (const name of ["id", "data-happening", "data-row", "data-moment"]) {
    const value = focused.getAttribute(name);
    if (value) return `[${name}="${CSS.escape(value)}"]`;
  }
  return "";
}

function restoreFocus(mark) {
  if (!mark) return;
  const again = element("view").querySelector(mark);
  // A step that was possible may be none any more: the focus goes to the button that undoes it.
  (again && !again.disabled ? again : element("view").querySelector("#undo:not([disabled]), #back:not([disabled]), button:not([disabled])"))?.focus();
}

// -- the head of the page ----------------------------------------------------------------------------------------------

function showViews(current) {
  fill(element("views"), h("ul", {}, Object.entries(VIEWS).map(([name, { title }]) =>
    h("li", {}, h("a", { href: address({ view: name, transport: app.transport }), "aria-current": name === current && "page" }, title)))));
}

function showTransports(view, place) {
  // A step back leads to the walk as it was.
  const choose = (transport) => () => (view === "simulate" ? push : replace)({ ...place, view, transport });
  const radio = (transport) => h("label", {}, h("input", {
    type: "radio", name: "transport", value: transport, id: `transport-${transport}`, checked: transport === app.transport,
    disabled: (view === "playback" && app.player.moments !== null) || (view === "live" && app.live.moments !== null), onchange: choose(transport),
  }), ` ${transport}`);
  const focused = document.activeElement?.name === "transport";
  fill(element("transports"), h("legend", {}, "Transport"), app.table.transports.map((one) => radio(one.transport)));
  if (focused) element(`transport-${app.transport}`).focus();
}

function showLegend() {
  fill(element("legend"), Object.entries(app.further.legend).map(([cause, text]) => h("li", { class: cause }, text)),
    h("li", { class: "mixed" }, "several of these"), h("li", { class: "frame" }, "an arrow from a frame leaves each state in it"));
}

function showResults() {
  const text = element("search").value;
  const found = search(app, text);
  if (!text.trim()) return fill(element("results"));
  const item = ({ place, kind, name, why }) => h("li", {}, link(place, h("b", {}, name)), ` ${[kind, why].filter(Boolean).join(": ")}`);
  return fill(element("results"), h("h2", {}, found.length ? `Found ${found.length}` : "Found nothing"),
    h("ul", {}, found.slice(0, RESULTS).map(item)), found.length > RESULTS && h("p", {}, `${found.length - RESULTS} more: type more of the text.`));
}

function clearSearch() {
  element("search").value = "";
  showResults();
}

// -- recordings --------------------------------------------------------------------------------------------------------

async function openFile(file) {
  if (!file) return;
  try {
    load(app.player, await file.text(), file.name);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    refuse(app.player, `${file.name}: this cannot be read (${error.message}): give a file written by Recorder`);
  }
  replace({ view: "playback" });
}

function listen() {
  window.addEventListener("hashchange", () => {
    clearSearch();
    render();
    element("content").focus({ preventScroll: true });
    window.scrollTo(0, isNarrow() ? element("content").offsetTop - 8 : 0);
  });
  element("search").addEventListener("input", showResults);
  element("search").addEventListener("keydown", (event) => {
    if (event.key === "Escape") clearSearch();
    if (event.key === "Enter") document.querySelector("#results a")?.click();
  });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      element("search").focus();
    }
  });
  element("theme").addEventListener("change", (event) => { document.documentElement.dataset.theme = event.target.value; });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the place that is shown
    element("content").focus();
    element("content").scrollIntoView();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    openFile(event.dataTransfer?.files[0]);
  });
}

const recorded = json("recording");
if (recorded !== null) {
  load(app.player, recorded);
  if (!location.hash) history.replaceState(null, "", address({ view: "playback" }));
}
const offered = json("live");
if (offered !== null) {
  VIEWS.live = { title: "Live", show: live };
  app.live = makeLive(app, offered);
  if (!location.hash) history.replaceState(null, "", address({ view: "live" }));
}
showLegend();
listen();
render();
if (offered !== null) followLive(app.live);
