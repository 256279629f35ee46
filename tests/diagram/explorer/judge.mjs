/** Evaluates an expression over the explorer's pure modules, and prints its value as JSON. */
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, lifecycle, expression] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${folder}/${name}.mjs`));
const modules = Object.assign({}, await load("machine"), await load("walk"), await load("pytest_copy"), await load("recording"));
const table = JSON.parse(readFileSync(lifecycle, "utf8"));
const names = Object.keys(modules);
const answer = new Function("table", "input", ...names, `return (${expression});`);
process.stdout.write(JSON.stringify(answer(table, readFileSync(0, "utf8"), ...names.map((name) => modules[name]))));
