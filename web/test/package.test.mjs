// The package as npm makes it: what is in it, that it works from there, and how large it is.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { minify } from "terser";
import { REPOSITORY } from "./server.mjs";

test("npm pack makes a package that can be imported, with types, and is small", async () => {
  const folder = mkdtempSync(join(tmpdir(), "gsz-package-"));
  try {
    execFileSync("npm", ["pack", "--silent", "--pack-destination", folder], { cwd: join(REPOSITORY, "web"), stdio: "pipe" });
    const [archive] = readdirSync(folder);
    execFileSync("tar", ["xzf", archive], { cwd: folder });
    const read = (name) => readFileSync(join(folder, "package", name));

    const { exports: entries, unpkg } = JSON.parse(read("package.json"));
    const files = Object.values(entries).flatMap((entry) => (typeof entry === "string" ? [entry] : Object.values(entry)));
    for (const name of [...files, unpkg, "README.md", "LICENSE"]) assert.ok(read(name).length, name);
    assert.match(read("dist/types/gsz.d.ts").toString(), /function decode\(bytes: Uint8Array\): Splats/);

    const { decode, SplatView } = await import(join(folder, "package/index.js"));
    const { count, shDegree } = decode(readFileSync(join(REPOSITORY, "tests/golden/gsz_v2_sh3_medium.gsz")));
    assert.deepEqual([count, shDegree, typeof SplatView], [1500, 3, "function"]);

    const viewer = gzipSync(read("dist/gsz-viewer.js"), { level: 9 }).length;
    const { code } = await minify(read("gsz.js").toString(), { module: true, compress: { passes: 3 } });
    const decoder = gzipSync(code, { level: 9 }).length;
    console.log(`the viewer with its decoder: ${viewer} bytes of gzip; the decoder alone: ${decoder}`);
    assert.ok(decoder <= 8 * 1024 && viewer <= 20 * 1024);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
