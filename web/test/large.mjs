// A large model in the viewer, in a browser without a graphics card: node web/test/large.mjs FILE.gsz
// Says when its layers are there, how long its worker sorts, and how long a frame of 400 x 300 pixels takes.
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { launch, openPage, picture } from "./browser.mjs";
import { python } from "./bundle.mjs";
import { serve } from "./server.mjs";

const CAMERAS = "/demo/snowmiku/pretrained/cameras.json";
const folder = mkdtempSync(join(tmpdir(), "gsz-large-"));
symlinkSync(resolve(process.argv[2]), join(folder, "large.gsz"));
writeFileSync(join(folder, "viewer.js"), python("-m", "gsz.viewer_script"));
writeFileSync(join(folder, "page.html"), `<!doctype html><style>body{margin:0}gsz-viewer{width:400px;height:300px}</style>
  <link rel="icon" href="data:,"><script src="viewer.js"></script><gsz-viewer bare src="large.gsz" cameras="${CAMERAS}"></gsz-viewer>`);
const server = await serve({ folder });
const browser = await launch();
try {
  const { page, complaints } = await openPage(browser);
  page.setDefaultTimeout(300_000);
  const began = performance.now();
  const seconds = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
  await page.goto(`${server.url}/folder/page.html`);
  await page.waitForFunction("document.querySelector('gsz-viewer').view?.models[0]?.loaded");
  console.log(`all of it is there after ${seconds()}`);
  await page.evaluate("document.querySelector('gsz-viewer').settled()");
  console.log(`it is sorted and drawn after ${seconds()}`);
  const { sorts, frames, count } = await page.evaluate(async () => {
    const { view } = document.querySelector("gsz-viewer");
    const [model] = view.models;
    const { gl } = view.renderer;
    /** From the request to the answer, while the worker has nothing else to do. */
    const sorted = (eye) => new Promise((done) => {
      const before = performance.now();
      model.worker.addEventListener("message", ({ data }) => data.sorted && done(performance.now() - before), { once: true });
      model.worker.postMessage({ sort: { eye, forward: view.pose.forward, layers: 99 } });
    });
    const drawn = (resolution) => {
      const before = performance.now();
      view.wasMoving = false;
      [view.resolution, view.movedAt] = [resolution, before];
      view.frame(before);
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
      return performance.now() - before;
    };
    const [x, y, z] = view.pose.position;
    view.redraw = () => {}; // Nothing is drawn meanwhile.
    const sorts = [];
    // The first answer may be to a request of the view's own.
    for (let turn = 0; turn < 9; turn++) sorts.push(await sorted([x, y, z + turn / 100]));
    return { sorts: sorts.slice(1), frames: [drawn(0.25), drawn(0.25), drawn(1)], count: model.counts.reduce((sum, layer) => sum + layer, 0) };
  });
  const told = (times) => times.map((time) => time.toFixed(0)).join(", ");
  console.log(`${count} Gaussians: sorted in ${told(sorts)} ms; drawn in ${told(frames)} ms, the last at full resolution`);
  if (process.argv[3]) writeFileSync(process.argv[3], await page.screenshot());
  const { rgb } = await picture(page);
  console.log(`${rgb.filter((value) => value > 20).length} values of the picture are not black; complaints: ${complaints.join() || "none"}`);
} finally {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true });
}
