// The viewer as one script, as the program `gsz` puts it into pages.
import { execFileSync } from "node:child_process";
import { REPOSITORY } from "./server.mjs";

export const PYTHON = process.env.PYTHON ?? `${REPOSITORY}.venv/bin/python`;
export const python = (...args) =>
  execFileSync(PYTHON, args, {
    cwd: REPOSITORY, encoding: "utf8", maxBuffer: 1 << 26,
    env: { ...process.env, PYTHONPATH: process.env.PYTHONPATH ?? REPOSITORY },
  });
export const bundle = () => python("-m", "gsz.viewer_script");
