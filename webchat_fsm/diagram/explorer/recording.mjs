/**
 * Reads a recording (JSON Lines of webchat_fsm.testing.Recorder) as a list of moments. Without DOM.
 *
 * @typedef {{time: number, kind: string, title: string, detail: string, state: string, line: object,
 *   routine: boolean}} Moment a moment of a poll that brought nothing is `routine`
 */

const VERSION = 1;

/** Kinds of moments in the order of the filter. */
export const KINDS = ["message", "event", "transition", "command", "request", "answer", "timer", "service"];

export const POLLS = ["refresh", "connect"];

/** Seconds without a moment that are folded. */
export const FOLDED_FROM = 5;

/** Raised for a file that is no recording; the text names the line. */
export class RecordingError extends Error {}

/** Holds a recording that grows line by line: from a file, or from a service that is running. */
export class Moments {
  /** @param {object} head the first line */
  constructor(head) {
    checkHead(head);
    this.transport = head.transport;
    /** @type {Moment[]} */
    this.all = [];
    this.state = "idle";
    /** By the number of a request: its operation, the moments that lead to it, and whether a command waits for it. */
    this.requests = new Map();
    this.count = 1;
  }

  /** Add one line; raises RecordingError for one that a recorder does not write. @returns {Moment[]} what it brings */
  add(line) {
    this.count += 1;
    checkLine(line, this.count);
    const state = this.state;
    if (typeof line.state === "string") this.state = line.state;
    const added = momentsOf(line, this.requests, state, this.state).map((one) => ({ ...one, line, routine: false }));
    this.all.push(...added);
    this.#note(line, added, state);
    return added;
  }

  /** Keep the moments that lead to a request; mark them once its answer turns out to bring nothing. */
  #note(line, added, stateBefore) {
    const answered = this.#requestOf(line.answered);
    answered?.moments.push(...added);
    if (answered && isRoutine(line, answered, stateBefore)) for (const one of answered.moments) one.routine = true;
    const made = this.#requestOf(line.request ?? line.calls);
    if (!made) return;
    made.operation = line.operation ?? made.operation;
    // A command whose first request only connects waits for the answer to the next one.
    made.byCommand ||= "command" in line || Boolean(answered?.byCommand && !isObject(line.outcome));
    if (!answered) made.moments.push(...added);
  }

  /** Return what is known of the request of a number, undefined without a number. */
  #requestOf(number) {
    if (number === undefined) return undefined;
    if (!this.requests.has(number)) this.requests.set(number, { operation: "", moments: [], byCommand: false });
    return this.requests.get(number);
  }
}

/**
 * Read the text of a file; a last line that is cut off is left out, with a warning.
 * @returns {{moments: Moments, warning: string}}
 */
export function readRecording(text) {
  const lines = text.trimEnd().split(/\r?\n/);
  const moments = new Moments(parsed(lines[0], 1));
  for (const [index, line] of lines.slice(1).entries()) {
    const number = index + 2;
    const value = parsedOrTorn(line, number, number === lines.length);
    if (value === null) return { moments, warning: `line ${number} is incomplete and is left out` };
    moments.add(value);
  }
  return { moments, warning: "" };
}

function parsed(line, number) {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new RecordingError(`line ${number}: this is no JSON (${error.message}): give a file written by Recorder`);
  }
}

function parsedOrTorn(line, number, isLast) {
  try {
    return parsed(line, number);
  } catch (error) {
    if (isLast && line.startsWith("{")) return null;
    throw error;
  }
}

/** Return whether an answer to a poll changed and published nothing. */
function isRoutine(line, { operation, moments }, stateBefore) {
  const quiet = !line.events.length && line.state === stateBefore && line.status >= 200 && line.status < 300;
  return quiet && POLLS.includes(operation) && moments.every((one) => one.kind !== "event" && one.kind !== "command");
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkHead(head) {
  if (!isObject(head) || !("recording" in head)) {
    throw new RecordingError("line 1: this is no recording of a chat session: give a file written by Recorder");
  }
  if (head.recording !== VERSION) {
    const advice = "make the page with the version of webchat-fsm that wrote it";
    throw new RecordingError(`line 1: a recording of version ${head.recording}, and this page reads version ${VERSION}: ${advice}`);
  }
}

function checkLine(line, number) {
  const wrong = (problem) => new RecordingError(`line ${number}: ${problem}`);
  if (!isObject(line)) throw wrong("expected an object");
  if ("recording" in line) throw wrong("another recording begins here; a file holds one");
  if (typeof line.time !== "number") throw wrong("time: expected a number");
  if ("request" in line) return;
  if (typeof line.state !== "string") throw wrong("state: expected a text");
  if (!isListOf(line.transitions, (row) => Array.isArray(row) && row.length === 3)) throw wrong("transitions: expected a list of [source, trigger, dest]");
  if (!isListOf(line.events, (event) => isObject(event) && typeof event.event === "string")) throw wrong("events: expected a list of objects");
}

function isListOf(value, test) {
  return Array.isArray(value) && value.every(test);
}

// -- moments -----------------------------------------------------------------------------------------------------------

function momentsOf(line, requests, before, state) {
  const moment = (kind, title, detail = "", at = state) => ({ time: line.time, kind, title: String(title), detail: String(detail), state: at });
  if ("request" in line) return [moment("request", line.operation, `${line.method ?? ""} ${line.url ?? ""}`)];
  const cause = causeOf(line, requests);
  const change = (source, dest) => (source === dest ? `stays ${dest}` : `${source} \u2192 ${dest}`);
  const moved = line.transitions.map(([source, trigger, dest]) => moment("transition", trigger, change(source, dest)));
  return [moment(cause.kind, cause.title, cause.detail, before), ...moved, ...line.events.flatMap((event) => eventMoments(event, moment))];
}

/** Return what a step was taken for. */
function causeOf(line, requests) {
  if ("command" in line) return { kind: "command", title: line.command, detail: outcomeOf(line) };
  if ("tick" in line) return { kind: "timer", title: line.tick, detail: line.by_hand ? "by hand" : "due" };
  if ("answered" in line) {
    const { operation, byCommand } = requests.get(line.answered) ?? { operation: `request ${line.answered}`, byCommand: false };
    return { kind: "answer", title: operation, detail: answerOf(line, byCommand) };
  }
  if ("opened" in line) return { kind: "service", title: "open", detail: line.opened ? "a session is saved" : "" };
  if ("closed" in line) return { kind: "service", title: "close", detail: "" };
  return { kind: "service", title: "interrupted", detail: `in request ${line.interrupted ?? "?"}` };
}

function outcomeOf(line) {
  if (!isObject(line.outcome)) return "waits for an answer";
  return line.outcome.resolved ? "resolved" : `rejected: ${line.outcome.reason}`;
}

function answerOf(line, byCommand) {
  const took = byCommand && isObject(line.outcome) ? `; the command is ${outcomeOf(line)}` : "";
  return `${line.fault ?? (line.status === undefined ? "the file could not be read" : `HTTP ${line.status}`)}${took}`;
}

function eventMoments(event, moment) {
  const messages = Array.isArray(event.data?.messages) ? event.data.messages : [];
  return [...messages.filter(isObject).map((message) => moment("message", nameOf(message), textOf(message))), moment("event", event.event)];
}

function nameOf(message) {
  return message.from?.name || message.from?.nickname || message.from?.type || "someone";
}

function textOf(message) {
  return message.type === "Message" ? (message.text ?? "") : `(${message.type ?? "message"}) ${message.text ?? ""}`.trim();
}

// -- folded time -------------------------------------------------------------------------------------------------------

/**
 * Return the place of each moment on a line of time whose silent stretches are folded to one second.
 * @param {Moment[]} moments
 * @returns {{places: number[], folds: {before: number, seconds: number, place: number}[], length: number}}
 */
export function folded(moments) {
  const places = [];
  const folds = [];
  let place = 0;
  moments.forEach((moment, index) => {
    const silent = index ? Math.max(0, moment.time - moments[index - 1].time) : 0;
    if (silent >= FOLDED_FROM) folds.push({ before: index, seconds: silent, place: place + 0.5 });
    place += silent >= FOLDED_FROM ? 1 : silent;
    places.push(place);
  });
  return { places, folds, length: place };
}

/** Return a span of seconds in words: `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`. */
export function span(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([size]) => seconds >= size);
  const [[size, name], next] = [units[first], units[first + 1]];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${next[1]}` : ""}`;
}
