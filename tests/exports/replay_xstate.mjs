// Replays a trace in XState: `node replay_xstate.mjs TRACE FOLDER FLAG...` compares each step with what the machine of
// FOLDER/<transport>.xstate.json reports, and prints one JSON object: the steps, and the differences.
import { readFileSync } from "node:fs";
import { createActor } from "xstate";
import { replay } from "./differences.mjs";
import { lifecycle } from "./runtime.mjs";

const [trace, folder, ...flags] = process.argv.slice(2);
const documents = {};
const document = (transport) =>
  (documents[transport] ??= JSON.parse(readFileSync(`${folder}/${transport}.xstate.json`, "utf-8")));

replay(trace, (transport, limit) => {
  const events = [], effects = [];
  const actor = createActor(lifecycle(document(transport), limit));
  actor.on("publish", (event) => events.push(event.name));
  actor.on("perform", (event) => effects.push(event.name));
  actor.start();
  return ({ trigger, inputs }) => {
    events.length = effects.length = 0;
    actor.send({ ...inputs, type: trigger });
    actor.send({ ...inputs, type: "commands" });
    const { value, context } = actor.getSnapshot();
    return {
      state: value, row: context.row, events, effects, failures: context.failures, refusals: context.refusals,
      flags: flags.filter((flag) => context[flag]),
    };
  };
});
