// The viewer as one script, as the package has it.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { minify } from "terser";
import { REPOSITORY } from "./server.mjs";

export const PYTHON = process.env.PYTHON ?? `${REPOSITORY}.venv/bin/python`;
export const python = (...args) =>
  execFileSync(PYTHON, args, {
    cwd: REPOSITORY, encoding: "utf8", maxBuffer: 1 << 26,
    env: { ...process.env, PYTHONPATH: process.env.PYTHONPATH ?? REPOSITORY },
  });
export const bundle = async () =>
  (await minify(python("-m", "gsz.viewer_script"), JSON.parse(readFileSync(`${REPOSITORY}web/terser.json`)))).code;
