// Opens a viewer's page in a browser and writes what it shows: node open.mjs FOLDER ASKED.json PICTURE.png
// Everything is served from three folders of this machine, and the browser is Debian's, without a GPU.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const [, , files, asked, picture] = process.argv;
const here = path.dirname(fileURLToPath(import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const server = http.createServer((request, answer) => {
  const wanted = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  const root = wanted.startsWith("/files/") ? files : here;
  const file = path.join(root, wanted.replace(/^\/files\//, "/"));
  if (!file.startsWith(root) || !fs.existsSync(file) || fs.statSync(file).isDirectory()) {
    answer.writeHead(404).end();
    return;
  }
  answer.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" });
  fs.createReadStream(file).pipe(answer);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
});
try {
  const what = JSON.parse(fs.readFileSync(asked, "utf8"));
  const page = await browser.newPage({ viewport: { width: what.camera.width, height: what.camera.height } });
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => line.type() === "error" && errors.push(line.text()));
  await page.goto(`http://127.0.0.1:${server.address().port}/page.html#${encodeURIComponent(JSON.stringify(what))}`);
  await page.waitForFunction("window.picture || window.failure", null, { timeout: 60_000 });
  const { data, failure } = await page.evaluate(() => ({ data: window.picture, failure: window.failure }));
  if (data) fs.writeFileSync(picture, Buffer.from(data.split(",")[1], "base64"));
  console.log(JSON.stringify({ failure: failure ?? null, errors: errors.slice(0, 3) }));
} catch (error) {
  console.log(JSON.stringify({ failure: error.message.split("\n")[0], errors: [] }));
}
await browser.close();
server.close();
