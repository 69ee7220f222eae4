// How fast files are decoded, warm: node web/test/speed.mjs FILE.gsz ...
import { readFileSync } from "node:fs";
import { decode } from "../gsz.js";

for (const name of process.argv.slice(2)) {
  const bytes = new Uint8Array(readFileSync(name));
  let count = 0;
  const seconds = Array.from({ length: 9 }, () => {
    const before = process.cpuUsage();
    ({ count } = decode(bytes));
    return process.cpuUsage(before).user / 1e6;
  });
  const [best, middle] = [Math.min(...seconds), seconds.sort((a, b) => a - b)[4]].map((time) => (count / time / 1e6).toFixed(2));
  console.log(`${name}: ${count} Gaussians, ${middle} million a second of the processor, at best ${best}`);
}
