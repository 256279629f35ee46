/**
 * Lists the inputs of a chat from outside: each happening fires one or several triggers, and has a line of Python that
 * makes the same happen with the test kit.
 *
 * @typedef {import("./machine.mjs").Session & {inputs: import("./machine.mjs").Inputs, people: string[],
 *   waiting: string[], history: string[], can: {polls: boolean, gms: boolean, asynchronous: boolean},
 *   sessionStates: string[]}} World a session with the inputs of its next step and what the server knows: who is in the
 *   chat, the events that its next answer brings, and all events so far; `can` is the record of its transport
 * @typedef {{id: string, label: string, group: string, command?: string, when: (world: World) => boolean,
 *   triggers: (world: World) => Array<string|{trigger: string, brings?: string[]}>, python: (world: World) => string[],
 *   server?: (world: World) => World}} Happening with `command` it is possible only where that command is legal
 */

const isGms = (world) => world.can.gms;
const polls = (world) => world.can.polls;
const isAsync = (world) => world.can.asynchronous;
const hasSession = (world) => world.sessionStates.includes(world.state);
const inChat = (world) => world.opened && hasSession(world);
const canPoll = (world) => inChat(world) && polls(world);
const closed = (world) => !world.opened;
const closedSaved = (world) => closed(world) && world.inputs.restorable;
const gmsPoll = (world) => canPoll(world) && isGms(world);
const outside = (world) => world.opened && ["idle", "ended"].includes(world.state);

/** Return a trigger whose answer brings events of messages. */
const brought = (trigger, brings) => ({ trigger, brings });

const line = (name, data = "") => `chat.command("${name}"${data && `, ${data}`})`;
const START = line("startChat", '{"nickname": "Jonny"}');
const SEND = line("sendMessage", '{"message": "Hello"}');
const TYPE = line("sendTyping", '{"message": "H"}');
/** Return the operation of a restore: over CometD it asks for the missed messages. */
const restoreOf = (world) => (polls(world) ? "restore" : "notifications");
const plan = (operation, fault) => `webchat_server.load_faults([{"operation": "${operation}", ${fault}}])`;

const NO_ANSWER = '"drop": True';
const BAD = '"http_status": 500';
const LOST_GMS = '"http_status": 404, "server_status": 2, "chat_ended": True';
const LOST_NEXUS = '"http_status": 404, "code": "INVALID_SESSION"';
const lostOf = (world) => (isGms(world) ? LOST_GMS : LOST_NEXUS);
const UNAVAILABLE = '"server_status": 1';

/** Return the happening "the next poll is answered so". */
function poll(id, label, fault, triggers, when = canPoll) {
  return {
    id: `poll-${id}`, label: `poll: ${label}`, group: "the next poll", when, triggers,
    python: () => [...(fault ? [plan("refresh", fault)] : []), "chat.step()"],
  };
}

/** Return the happening "the service opens, and the restore is answered so". */
function openAndRestore(id, label, fault, triggers, more = {}) {
  return {
    id: `open-${id}`, label: `open(): the restore ${label}`, group: "commands", triggers,
    when: (world) => closedSaved(world) && (!more.gmsPolls || (isGms(world) && polls(world))),
    python: (world) => [...(fault ? [plan(restoreOf(world), fault)] : []), "chat.open()"], server: more.server,
  };
}

/** Return the happening "the user restores, and it is answered so". */
function restore(id, label, fault, triggers) {
  return {
    id: `restore-${id}`, label: `restore: ${label}`, group: "commands", command: "restore",
    triggers: (world) => ["restore", ...triggers(world)], when: (world) => isAsync(world) && world.inputs.restorable,
    python: () => [...(fault ? [plan("restore", fault)] : []), line("restore")], server: fault ? undefined : allDelivered,
  };
}

const allDelivered = (world) => ({ ...world, waiting: [] });
const everything = (world) => brought("restore confirmed", world.history);
const pollAnswered = (world) => brought("poll answered", world.waiting);
const leaveOf = (contact) => (world) => ["endChat", ...(hasSession(world) ? [contact] : []), "leave settled"];
const typingEnds = (world) => (world.flags.includes("client_typing") ? ["typing over"] : []);

/** Return what an answered request fires: over CometD its acknowledgement carries the push with its echo, as a poll. */
const answered = (world) => (polls(world) ? ["another request answered"] : [pollAnswered(world), "another request answered"]);
/** Return whether the next step is certain: over CometD it depends on the requests of a connection in doubt. */
const isSure = (world) => polls(world) || !world.flags.includes("disconnected");

function join(kind, name, event) {
  return {
    id: `join-${kind}`, label: `${name}, ${kind === "agent" ? "an agent" : `a ${kind}`}, joins (the next answer reports it)`,
    group: "the other side", python: () => [`${name.toLowerCase()} = webchat_server.${kind}("${name}").join()`],
    when: (world) => canPoll(world) && !world.people.includes(kind) && (kind !== "bot" || isGms(world)),
    triggers: () => [], server: (world) => withPerson(world, kind, event),
  };
}

function withPerson(world, kind, event) {
  return { ...world, people: [...world.people, kind], waiting: [...world.waiting, event], history: [...world.history, event] };
}

function leave(kind, name, event) {
  return {
    id: `leave-${kind}`, label: `${name} leaves (the next answer reports it)`, group: "the other side",
    when: (world) => canPoll(world) && world.people.includes(kind), python: () => [`${name.toLowerCase()}.leave()`],
    triggers: () => [],
    server: (world) => ({ ...withPerson(world, kind, event), people: world.people.filter((one) => one !== kind) }),
  };
}

const LEAVING = { agent: "agentDisconnected", supervisor: "supervisorDisconnected", bot: "botDisconnected" };

/** Return what a poll brings once the server has ended the chat: all but the user leave first, in their order. */
function lastContent(world) {
  return [...world.waiting, ...world.people.map((kind) => LEAVING[kind])];
}

/** Happenings in the order of the page. @type {Happening[]} */
export const HAPPENINGS = [
  {
    id: "open", label: "open(): nothing is saved", group: "commands", when: (world) => closed(world) && !world.inputs.restorable,
    triggers: () => ["open"], python: () => ["chat.open()"],
  },
  openAndRestore("ok", "is confirmed", "", (world) => ["open", everything(world)], { server: allDelivered }),
  openAndRestore("silent", "has no answer", NO_ANSWER, () => ["open", "restore unanswered"]),
  openAndRestore("bad", "is answered with HTTP 500", BAD, () => ["open", "restore badly answered"]),
  openAndRestore("unavailable", "is confirmed, the chat server is unavailable", UNAVAILABLE,
    () => ["open", "restore confirmed, chat server unavailable"],
    { gmsPolls: true, server: (world) => ({ ...world, waiting: world.history }) }),
  openAndRestore("ended-badly", "finds the chat ended, with errors", '"server_status": 2, "chat_ended": True',
    () => ["open", "found ended, with errors"], { gmsPolls: true }),
  {
    ...openAndRestore("ended", "finds the chat ended", "", () => ["open", "found ended"]),
    when: (world) => closedSaved(world) && !isAsync(world),
    python: () => ["webchat_server.end()", "chat.open()"],
  },
  {
    ...openAndRestore("lost", "finds the session lost", "", () => ["open", "saved session lost"]),
    when: (world) => closedSaved(world) && polls(world),
    python: (world) => [plan("restore", lostOf(world)), "chat.open()"],
  },
  {
    id: "open-late", label: "open() after restoreTimeout", group: "commands", when: (world) => closedSaved(world) && isGms(world),
    triggers: () => ["open", "saved session too old"],
    python: () => ["webchat_timeline.advance(66.0)  # seconds; restoreTimeout is 60", "chat.open()"],
  },
  {
    id: "verify-late", label: "verifySession after restoreTimeout", group: "commands",
    when: (world) => outside(world) && world.inputs.restorable && isGms(world), triggers: () => ["saved session too old"],
    command: "verifySession", python: () => ["webchat_timeline.advance(66.0)  # seconds; restoreTimeout is 60", line("verifySession")],
  },
  {
    id: "start", label: "startChat: confirmed", group: "commands", command: "startChat", when: outside, python: () => [START],
    triggers: (world) => ["startChat", "start confirmed", ...(polls(world) ? [] : [brought("poll answered", ["clientConnected"])])],
    server: (world) => ({
      ...world, people: [], history: ["clientConnected"], waiting: polls(world) ? ["clientConnected"] : [],
    }),
  },
  {
    id: "start-refused", label: "startChat: refused by the chat server", group: "commands", command: "startChat",
    when: (world) => outside(world) && isGms(world), triggers: () => ["startChat", "start refused"],
    python: () => [plan("start", '"server_status": 2'), START],
  },
  {
    id: "start-failed", label: "startChat: answered with HTTP 500", group: "commands", command: "startChat",
    when: (world) => outside(world) && polls(world), triggers: () => ["startChat", "start failed"],
    python: () => [plan("start", BAD), START],
  },
  {
    id: "start-silent", label: "startChat: no answer", group: "commands", command: "startChat",
    when: (world) => outside(world) && polls(world), triggers: () => ["startChat", "start failed"],
    python: () => [plan("start", NO_ANSWER), START],
  },
  restore("ok", "confirmed", "", (world) => [everything(world)]),
  restore("silent", "no answer", NO_ANSWER, () => ["restore unanswered"]),
  restore("bad", "answered with HTTP 500", BAD, () => ["restore badly answered"]),
  {
    id: "send", label: "sendMessage", group: "commands", command: "sendMessage", when: (world) => inChat(world) && isSure(world),
    triggers: (world) => [...typingEnds(world), ...answered(world)], python: () => [SEND],
  },
  {
    id: "send-silent", label: "sendMessage: no answer", group: "commands", command: "sendMessage", when: canPoll,
    triggers: (world) => [...typingEnds(world), "no complete answer"], python: () => [plan("send", NO_ANSWER), SEND],
  },
  {
    id: "type", label: "sendTyping", group: "commands", command: "sendTyping", python: () => [TYPE],
    when: (world) => inChat(world) && isSure(world) && !world.flags.includes("client_typing"),
    triggers: (world) => ["sendTyping", ...answered(world)],
  },
  {
    id: "type-again", label: "sendTyping again", group: "commands", command: "sendTyping", python: () => [TYPE],
    when: (world) => inChat(world) && world.flags.includes("client_typing"), triggers: () => ["sendTyping"],
  },
  {
    id: "stop-poll", label: "stopPoll", group: "commands", command: "stopPoll", when: canPoll,
    triggers: () => ["stopPoll"], python: () => [line("stopPoll")],
  },
  {
    id: "start-poll", label: "startPoll", group: "commands", command: "startPoll", when: canPoll, triggers: () => ["startPoll"],
    python: () => [line("startPoll")],
  },
  {
    id: "reset", label: "resetPollExceptions", group: "commands", command: "resetPollExceptions",
    python: () => [line("resetPollExceptions")], when: (world) => world.failures > 0, triggers: () => [],
    server: (world) => ({ ...world, failures: 0 }),
  },
  {
    id: "end", label: "endChat", group: "commands", command: "endChat", python: () => [line("endChat")], when: polls,
    triggers: leaveOf("another request answered"),
  },
  {
    id: "end-pushed", label: "endChat", group: "commands", command: "endChat", python: () => [line("endChat")],
    when: (world) => !polls(world) && isSure(world),
    triggers: () => ["endChat", brought("poll answered", ["clientDisconnected"]), "server ended the chat"],
  },
  {
    id: "end-silent", label: "endChat: no answer", group: "commands", command: "endChat", when: isSure,
    triggers: leaveOf("no complete answer"), python: () => [plan("disconnect", NO_ANSWER), line("endChat")],
  },
  {
    id: "close", label: "close()", group: "commands", when: (world) => world.opened, triggers: () => ["close"],
    python: () => ["chat.close()"],
  },
  { ...poll("ok", "answered", "", (world) => [pollAnswered(world)]), server: allDelivered },
  poll("silent", "no answer", NO_ANSWER, () => ["no complete answer", "poll failed"]),
  poll("bad", "answered with HTTP 500", BAD, () => ["another request answered", "poll badly answered", "poll failed"]),
  poll("unavailable", "the chat server is unavailable", UNAVAILABLE,
    () => ["another request answered", "poll failed", "content of an answer"], gmsPoll),
  poll("throttled", "put off with HTTP 429", '"http_status": 429', () => ["another request answered"]),
  {
    ...poll("lost", "the session is unknown to the server", "", () => ["session lost"]),
    python: (world) => [plan("refresh", lostOf(world)), "chat.step()"],
  },
  {
    ...poll("ended", "the server has ended the chat", "", (world) => [brought("poll answered", lastContent(world)), "server ended the chat"]),
    python: () => ["webchat_server.end()", "chat.step()"], server: (world) => ({ ...world, people: [], waiting: [] }),
  },
  join("agent", "Ann", "agentConnected"),
  join("supervisor", "Sue", "supervisorConnected"),
  join("bot", "Bo", "botConnected"),
  leave("agent", "Ann", "agentDisconnected"),
  leave("supervisor", "Sue", "supervisorDisconnected"),
  leave("bot", "Bo", "botDisconnected"),
];
