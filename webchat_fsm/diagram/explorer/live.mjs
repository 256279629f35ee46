/** Shows a chat of the program that serves the page as it runs, and its other end to move: the view "Live". */
import { refusal } from "./machine.mjs";
import { Moments, POLLS } from "./recording.mjs";
import { address, fill, h } from "./elements.mjs";

/** Rows of the log, and moments for the playback, that are kept at most. */
const ROWS = 1000;
const MOMENTS = 10000;

/** By the text of its button, what is given to `Faults.add`. */
const FAULTS = {
  "Drop the answer": { drop: true },
  "Tear the answer": { tear: true },
  "HTTP 500": { http_status: 500 },
  "HTTP 503, retry after 5 s": { http_status: 503, retry_after: 5 },
  "Temporary error": { server_status: 1 },
  "Delay by 3 s": { delay: 3 },
  "Repeat messages": { duplicate: true },
  "Reverse messages": { reorder: true },
};

/**
 * Return the live view, whose elements are made once: what is typed in them stays while entries come.
 * @param {object} app the page
 * @param {{transports: string[], operations: string[], server: string}} offered
 */
export function makeLive(app, offered) {
  const parts = {
    problem: h("p", { class: "problem", role: "alert", hidden: true }),
    state: h("dd", { id: "live-state" }, "no chat"),
    transport: h("dd", {}, "-"),
    faults: h("dd", { id: "live-faults" }, "0"),
    log: h("ol", { class: "log", id: "live-log", tabindex: "0", "aria-live": "polite", "aria-label": "What happened" }),
  };
  const live = { app, offered, parts, moments: null, opened: false, last: 0, began: null, rows: new WeakMap(), buttons: [], body: null };
  live.body = h("div", { class: "live" }, h("h2", { class: "hidden" }, "Live"), parts.problem, now(live), customer(live), agent(live), faults(live), log(live));
  showLegal(live);
  return live;
}

/** Return the content of the view and the marks of the drawing. */
export function live(app) {
  const { moments, body } = app.live;
  return { content: body, marks: { current: moments?.state }, transport: moments?.transport };
}

/** Read entries from the program as they come, until it cannot be reached. */
export async function followLive(live) {
  try {
    for (;;) {
      const answer = await fetch(`entries?after=${live.last}`);
      if (!answer.ok) throw new Error(`it answers ${answer.status}`);
      const { last, entries, faults } = await answer.json();
      live.last = last;
      for (const entry of entries) take(live, entry);
      fill(live.parts.faults, String(faults));
    }
  } catch (error) {
    report(live, `The program that serves this page cannot be reached (${error.message}). `,
      h("button", { type: "button", onclick: () => { report(live, ""); followLive(live); } }, "Try again"));
  }
}

function report({ parts }, ...content) {
  fill(parts.problem, ...content);
  parts.problem.hidden = content[0] === "";
}

/** Ask the program for something; what it refuses is shown. */
async function ask(live, path, content) {
  report(live, "");
  try {
    const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(content) });
    if (!answer.ok) report(live, (await answer.json()).error);
  } catch (error) {
    report(live, `This was not done: ${error.message}`);
  }
}

// -- entries -----------------------------------------------------------------------------------------------------------

function take(live, { kind, content }) {
  if (kind === "head") begin(live, content);
  else if (kind === "line") addLine(live, content);
  else if (kind === "request") {
    const text = `${content.dialect} ${content.method} ${content.path}`;
    row(live, { time: content.time, kind: "server", title: content.operation, detail: text, routine: POLLS.includes(content.operation) });
  } else row(live, { kind, title: titleOf(kind, content), detail: content.text ?? "" });
}

function titleOf(kind, content) {
  if (kind === "agent") return content.do;
  return content.cleared ? "all removed" : Object.entries(content).map(([key, value]) => `${key}=${value}`).join(", ");
}

function begin(live, head) {
  live.moments = new Moments(head);
  live.opened = false;
  fill(live.parts.transport, head.transport);
  row(live, { kind: "service", title: "a chat begins", detail: `on ${head.transport}` });
  showState(live, true);
}

function addLine(live, line) {
  if (live.moments === null) return;
  const { moments } = live;
  const before = moments.state;
  if ("opened" in line || "closed" in line) live.opened = "opened" in line;
  for (const one of moments.add(line)) row(live, one);
  // An answer may show that what led to it was a poll that brought nothing.
  for (const one of moments.all.slice(-20)) if (one.routine) live.rows.get(one)?.classList.add("routine");
  if (moments.all.length > MOMENTS) moments.all.splice(0, moments.all.length - MOMENTS);
  showState(live, moments.state !== before);
}

function showState(live, changed) {
  const { app, moments, parts } = live;
  fill(parts.state, moments.state);
  showLegal(live);
  if (!changed || document.getElementById("layout").dataset.view !== "live") return;
  if (app.transport === moments.transport) app.showState(moments.state);
  else app.render();
}

function row(live, one) {
  const { parts: { log } } = live;
  live.began ??= one.time ?? null;
  const when = one.time === undefined || live.began === null ? "" : (one.time - live.began).toFixed(2);
  const routine = one.routine || (one.kind === "request" && POLLS.includes(one.title));
  const item = h("li", { class: routine ? "routine" : "" }, h("span", { class: "when" }, when),
    h("span", { class: `kind ${one.kind}` }, one.kind), h("span", { class: "what" }, h("b", {}, one.title), " ", one.detail));
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(item);
  live.rows.set(one, item);
  if (log.children.length > ROWS) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// -- the parts of the view ---------------------------------------------------------------------------------------------

/** Enable the buttons of the commands that are legal now. */
function showLegal(live) {
  for (const { button, command } of live.buttons) button.disabled = !isLegal(live, command);
}

/** Return whether a command is legal; `leave` and `restore` are no commands, but close and open the service. */
function isLegal({ app, moments, opened }, command) {
  if (command === "leave") return opened;
  if (command === "restore") return moments !== null && !opened;
  if (!opened) return command === "startChat";
  return refusal(app.table.commands.find((one) => one.command === command), moments.state, moments.transport) === "";
}

function now({ parts, offered }) {
  return h("section", { class: "now", "aria-label": "Now" }, h("dl", {},
    h("div", {}, h("dt", {}, "State"), parts.state), h("div", {}, h("dt", {}, "Transport"), parts.transport),
    h("div", {}, h("dt", {}, "Faults"), parts.faults), h("div", {}, h("dt", {}, "Server"), h("dd", {}, h("code", {}, offered.server)))));
}

function button(live, id, text, onclick, command = null) {
  const made = h("button", { type: "button", id, onclick }, text);
  if (command) live.buttons.push({ button: made, command });
  return made;
}

/** Return a line of input with its button; what is typed is cleared when it is given. */
function sayForm(live, id, label, text, give, command = null) {
  const input = h("input", { id, "aria-label": label, placeholder: label, autocomplete: "off" });
  const submit = h("button", { id: `${id}-send` }, text);
  if (command) live.buttons.push({ button: submit, command });
  const onsubmit = (event) => {
    event.preventDefault();
    if (input.value) give(input.value);
    input.value = "";
  };
  return h("form", { class: "say", onsubmit }, input, submit);
}

function customer(live) {
  const order = (content) => ask(live, "customer", content);
  const transport = h("select", { id: "live-transport" }, live.offered.transports.map((one) => h("option", {}, one)));
  const nickname = h("input", { id: "live-nickname", value: "Jonny", size: 5 });
  const start = () => order({ do: "start", transport: transport.value, nickname: nickname.value });
  return h("fieldset", { class: "customer" }, h("legend", {}, "You as the customer"),
    h("label", {}, "on ", transport), h("label", {}, "as ", nickname), button(live, "live-start", "Start a chat", start, "startChat"),
    button(live, "live-end", "End it", () => order({ do: "end" }), "endChat"),
    button(live, "live-leave", "Leave the page", () => order({ do: "leave" }), "leave"),
    button(live, "live-restore", "Come back", () => order({ do: "restore" }), "restore"),
    sayForm(live, "live-text", "A message of the customer", "Send", (text) => order({ do: "send", text }), "sendMessage"));
}

function agent(live) {
  const order = (action, text = "") => ask(live, "agent", { do: action, text });
  return h("fieldset", {}, h("legend", {}, "You as an agent in the chat that was started last"),
    ["join", "typing", "leave"].map((one) => button(live, `agent-${one}`, one[0].toUpperCase() + one.slice(1), () => order(one))),
    button(live, "agent-end", "End the chat", () => order("end")),
    sayForm(live, "agent-text", "A message of the agent", "Say", (text) => order("say", text)));
}

function faults(live) {
  const operation = h("select", { id: "fault-operation" }, h("option", { value: "" }, "any"), live.offered.operations.map((one) => h("option", {}, one)));
  const times = h("input", { id: "fault-times", type: "number", min: 1, max: 1000, value: 1 });
  const strike = (fault) => () => ask(live, "fault", { ...fault, operation: operation.value || null, times: Number(times.value) });
  return h("fieldset", {}, h("legend", {}, "Faults of the server"),
    h("label", {}, "of the operation ", operation), h("label", {}, "times ", times),
    button(live, "fault-clear", "Remove all", () => ask(live, "clear", {})),
    h("div", { class: "group" }, Object.entries(FAULTS).map(([text, fault]) => button(live, `fault-${Object.keys(fault).join("-")}`, text, strike(fault)))));
}

function log(live) {
  const { app, parts } = live;
  const change = (event) => parts.log.classList.toggle("with-routine", event.target.checked);
  const playBack = () => {
    if (live.moments === null) return report(live, "No chat has been started here: start one first.");
    app.player.moments = live.moments;
    location.hash = address({ view: "playback", at: live.moments.all.length - 1 });
  };
  return h("section", { class: "happened" },
    h("div", { class: "controls" }, h("h3", {}, "What happened"),
      h("label", {}, h("input", { type: "checkbox", onchange: change }), " polls that brought nothing"),
      h("button", { type: "button", id: "live-playback", onclick: playBack }, "Play it back"),
      h("a", { href: "session.html", download: "webchat-session.html", id: "live-save" }, "Save as HTML")),
    parts.log,
    h("p", { class: "also" }, "\"server\" is a request of any client; all others are of the chat that was started here."));
}
