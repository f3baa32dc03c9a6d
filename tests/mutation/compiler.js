// A resident solc: reads one request a line, {"sources": {path: content}, "settings": {...}}, and answers
// with one line of standard JSON output. Other sources are read from the folder named as argument.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const root = path.resolve(process.argv[2]);
const solc = require(require.resolve("solc", { paths: [root] }));
const cache = new Map();

function read(name) {
  if (!cache.has(name)) {
    const places = [root, path.join(root, "node_modules")].map((folder) => path.resolve(folder, name));
    const file = places.find((place) => fs.existsSync(place));
    cache.set(name, file === undefined ? { error: `not found: ${name}` } : { contents: fs.readFileSync(file, "utf8") });
  }
  return cache.get(name);
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { sources, settings } = JSON.parse(line);
  const contents = Object.fromEntries(Object.entries(sources).map(([name, content]) => [name, { content }]));
  const input = JSON.stringify({ language: "Solidity", sources: contents, settings });
  process.stdout.write(JSON.stringify(JSON.parse(solc.compile(input, { import: read }))) + "\n");
});
