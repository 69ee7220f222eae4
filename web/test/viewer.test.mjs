// The viewer in a real browser: pictures against the CPU renderer, controls, failures, and a page without a server.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { NO_BROWSER, launch, openPage, picture, psnr } from "./browser.mjs";
import { bundle, python } from "./bundle.mjs";
import { serve, REPOSITORY } from "./server.mjs";

const MODEL = "/demo/snowmiku/pretrained/point_cloud/iteration_15000/point_cloud.ply";
const CAMERAS = "/demo/snowmiku/pretrained/cameras.json";
const STYLE = "<style>html,body{margin:0;height:100%}gsz-viewer{width:400px;height:300px}</style><link rel=icon href='data:,'>";

/** SuperSplat's viewer on `levels/lod-meta.json`, at the first photograph; it turns models half about z. */
const SUPERSPLAT = `<link rel="stylesheet" href="/web/node_modules/@playcanvas/supersplat-viewer/dist/viewer.css">
<style>#viewer, #viewer canvas { position: absolute; inset: 0; width: 100%; height: 100% }</style><div id="viewer"></div>
<script type="importmap">{ "imports": { "playcanvas": "/web/node_modules/playcanvas/build/playcanvas.mjs", "playcanvas/": "/web/node_modules/playcanvas/" } }</script>
<script type="module">
import * as pc from "playcanvas";
import { createViewer } from "/web/node_modules/@playcanvas/supersplat-viewer/dist/viewer.js";
import { defaultSettings } from "/web/node_modules/@playcanvas/supersplat-viewer/dist/settings.js";
try {
  const settings = defaultSettings();
  settings.background.color = [0, 0, 0];
  settings.tonemapping = "none";
  const container = document.getElementById("viewer");
  const viewer = await createViewer({ container, settings, contentUrl: "levels/lod-meta.json", renderer: "webgl", ui: false, noanim: true });
  if (!viewer.state.loaded) await new Promise((resolve) => viewer.events.on("loaded:changed", resolve));
  const [{ rotation: r, position: p, width, height, fx, fy }] = await (await fetch("${CAMERAS}")).json();
  const axis = (k, sign) => [-sign * r[0][k], -sign * r[1][k], sign * r[2][k], 0];
  const turn = new pc.Quat().setFromMat4(new pc.Mat4().set([...axis(0, 1), ...axis(1, -1), ...axis(2, -1), 0, 0, 0, 1]));
  viewer.app.on("update", () => {
    const entity = viewer.app.root.findByName("camera");
    entity.setPosition(-p[0], -p[1], p[2]);
    entity.setRotation(turn);
    Object.assign(entity.camera, {
      horizontalFov: false, fov: (2 * Math.atan(height / 2 / fy) * 180) / Math.PI, aspectRatioMode: pc.ASPECT_MANUAL,
      aspectRatio: (width * fy) / (height * fx), nearClip: 0.05, farClip: 1000,
    });
    viewer.app.renderNextFrame = true;
  });
  viewer.app.on("frameend", () => (window.drawn = (window.drawn ?? 0) + 1));
} catch (error) {
  window.failed = error.stack;
}
</script>`;

/** A viewer of `scripts/viewers` on a glTF of the small model, at the first photograph, which is half about z from INRIA's axes. */
const GLTF = (name) => `<script type="importmap">{ "imports": {
  "three": "/web/node_modules/three/build/three.webgpu.js", "three/webgpu": "/web/node_modules/three/build/three.webgpu.js",
  "three/tsl": "/web/node_modules/three/build/three.tsl.js", "three/addons/": "/web/node_modules/three/examples/jsm/",
  "playcanvas": "/web/node_modules/playcanvas/build/playcanvas.mjs", "playcanvas/": "/web/node_modules/playcanvas/"
} }</script>
<script type="module">
import { show } from "/scripts/viewers/${name}.js";
const [camera] = await (await fetch("${CAMERAS}")).json();
const [fx, fy] = [(camera.fx * 400) / camera.width, (camera.fy * 300) / camera.height];
try {
  await show({ file: "small.glb", camera: { ...camera, width: 400, height: 300, fx, fy }, turn: "z" });
  window.shown = true;
} catch (error) {
  window.failed = error.stack;
}
</script>`;

/** Asserts that two pictures agree to so many decibels. */
function near(shown, expected, least) {
  const decibels = psnr(shown, expected);
  console.log(`${decibels.toFixed(1)} dB, at least ${least} wanted`);
  assert.ok(decibels >= least, `${decibels.toFixed(1)} dB, not ${least}`);
}

describe("the viewer", { skip: NO_BROWSER, timeout: 240_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "gsz-web-"));
  let browser, server;

  const reference = (name) => readFileSync(join(folder, `${name}.rgb`));
  const write = (name, body) => writeFileSync(join(folder, name), `<!doctype html><meta charset="utf-8">${STYLE}${body}`);
  /** Opens a page of the folder and waits until its viewer has cameras. */
  async function open(name, options) {
    const opened = await openPage(browser, options);
    await opened.page.goto(`${server.url}/folder/${name}`);
    await opened.page.waitForFunction("document.querySelector('gsz-viewer').cameras.length > 0");
    return opened;
  }
  const settled = (page) => page.evaluate("document.querySelector('gsz-viewer').settled()");
  const pose = (page) => page.evaluate("document.querySelector('gsz-viewer').view.pose");
  const said = (page) => page.evaluate("document.querySelector('gsz-viewer').status.textContent");

  before(async () => {
    python("web/test/reference.py", folder);
    const script = await bundle();
    writeFileSync(join(folder, "viewer.js"), script);
    const viewer = (attributes) => `<gsz-viewer bare cameras="${CAMERAS}" ${attributes}></gsz-viewer>`;
    write("ply.html", `<script src="viewer.js"></script>${viewer(`src="${MODEL}"`)}`);
    write("module.html", `<script type="module" src="/web/index.js"></script>${viewer(`src="${MODEL}"`)}`);
    write("gsz.html", `<script src="viewer.js"></script>${viewer('src="demo.gsz"')}`);
    write("small.html", `<script src="viewer.js"></script>${viewer('src="small.gsz"')}`);
    write("pair.html", `<script src="viewer.js"></script>${viewer('src="small.gsz" src2="demo.gsz"')}`);
    write("supersplat.html", SUPERSPLAT);
    for (const name of ["three", "playcanvas"]) write(`gltf_${name}.html`, GLTF(name));
    write("missing.html", `<script src="viewer.js"></script>${viewer('src="nothing.gsz"')}`);
    const embedded = readFileSync(join(folder, "demo.gsz")).toString("base64");
    write("alone.html", `<script>${script}</script><gsz-viewer bare src="data:;base64,${embedded}"></gsz-viewer>
      <script>document.querySelector("gsz-viewer").cameras = ${readFileSync(REPOSITORY + CAMERAS, "utf8")};</script>`);
    server = await serve({ folder });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    server?.close();
    rmSync(folder, { recursive: true });
  });

  test("shows the demo's file as the CPU renderer does, at three cameras", async () => {
    const { page, context, complaints } = await open("gsz.html");
    for (const index of [0, 20, 60]) {
      await page.evaluate(`document.querySelector("gsz-viewer").goTo(${index})`);
      await settled(page);
      near((await picture(page)).rgb, reference(`demo_${index}`), 45);
    }
    assert.deepEqual(complaints, []);
    await context.close();
  });

  test("shows a .ply, from the modules as from the one script", async () => {
    for (const name of ["ply.html", "module.html"]) {
      const { page, context, complaints } = await open(name);
      await settled(page);
      near((await picture(page)).rgb, reference("original_0"), 45);
      assert.deepEqual(complaints, []);
      await context.close();
    }
  });

  test("a page that holds everything opens from disk, offline", async () => {
    const { page, context, complaints } = await openPage(browser, { offline: true });
    const requests = [];
    page.on("request", (request) => /^(data|blob):/.test(request.url()) || requests.push(request.url()));
    await page.goto(`file://${join(folder, "alone.html")}`);
    await settled(page);
    near((await picture(page)).rgb, reference("demo_0"), 45);
    assert.deepEqual(requests, [`file://${join(folder, "alone.html")}`]);
    assert.deepEqual(complaints, []);
    await context.close();
  });

  test("compares two models: exchanged, side by side, and their difference", async () => {
    const { page, context } = await open("pair.html");
    const look = async (name) => {
      await page.evaluate(`document.querySelector("gsz-viewer").setAttribute("look", "${name}")`);
      await settled(page);
      return (await picture(page)).rgb;
    };
    const [first, second] = [reference("small_0"), reference("demo_0")];
    near(await look("second"), second, 45);
    await page.focus("canvas");
    await page.keyboard.press("Space");
    await page.evaluate("document.activeElement.blur()"); // The ring around what has the focus is no part of the picture.
    await settled(page);
    near((await picture(page)).rgb, first, 45);
    const halves = Buffer.from(first.map((value, i) => ((i / 3) % 400 < 200 ? value : second[i])));
    near(await look("split"), halves, 25); // one column is the white line
    const difference = Buffer.from(first.map((value, i) => Math.min(255, 10 * Math.abs(value - second[i]))));
    near(await look("difference"), difference, 25); // ten times what 45 dB allows
    await context.close();
  });

  test("obeys mouse, wheel, keyboard and touch", async () => {
    const { page, context } = await open("small.html", { hasTouch: true });
    await settled(page);
    const moved = async (what, action) => {
      const earlier = JSON.stringify(await pose(page));
      await action();
      await page.waitForFunction((then) => JSON.stringify(document.querySelector("gsz-viewer").view.pose) !== then, earlier, { timeout: 5000 })
        .catch(() => assert.fail(`${what} does nothing`));
      return [JSON.parse(earlier), await pose(page)];
    };
    const drag = async (x, y) => {
      await page.mouse.move(200, 150);
      await page.mouse.down();
      await page.mouse.move(200 + x, 150 + y, { steps: 3 });
      await page.mouse.up();
    };
    const target = () => page.evaluate("document.querySelector('gsz-viewer').view.target");
    const distance = (a, b) => Math.hypot(...a.map((value, i) => value - b[i]));

    const center = await target();
    const [start, turned] = await moved("dragging", () => drag(40, 10));
    assert.ok(Math.abs(distance(start.position, center) - distance(turned.position, center)) < 1e-6, "turning keeps the distance");
    const [, nearer] = await moved("the wheel", () => page.mouse.wheel(0, -300));
    assert.ok(distance(nearer.position, center) < distance(turned.position, center));
    await page.keyboard.down("Shift");
    const [beside, shifted] = await moved("dragging with Shift", () => drag(30, 0));
    await page.keyboard.up("Shift");
    assert.deepEqual(shifted.forward, beside.forward);
    const [still, flown] = await moved("W", async () => {
      await page.keyboard.down("w");
      await page.waitForTimeout(300);
      await page.keyboard.up("w");
    });
    assert.ok(distance(flown.position, still.position) > 1e-3);
    await moved("a double click", () => page.mouse.dblclick(220, 160));
    assert.ok(distance(await target(), center) > 1e-3);
    await moved("Page Down", () => page.keyboard.press("PageDown"));

    const session = await context.newCDPSession(page);
    const touch = (type, ...points) => session.send("Input.dispatchTouchEvent", { type, touchPoints: points.map(([x, y], id) => ({ x, y, id })) });
    await moved("a touch", async () => {
      await touch("touchStart", [200, 150]);
      await touch("touchMove", [230, 150]);
      await touch("touchEnd");
    });
    const [far, near] = await moved("a pinch", async () => {
      await touch("touchStart", [180, 150], [220, 150]);
      await touch("touchMove", [140, 150], [260, 150]);
      await touch("touchEnd");
    });
    const middle = await target();
    assert.ok(distance(near.position, middle) < distance(far.position, middle));
    await context.close();
  });

  test("shows fewer layers, another background, and fewer pixels while the camera moves", async () => {
    const { page, context } = await open("small.html");
    const choose = async (name, value) => {
      await page.evaluate(([field, to]) => {
        const viewer = document.querySelector("gsz-viewer");
        viewer.field(field).value = to;
        viewer.field(field).dispatchEvent(new Event("input", { bubbles: true }));
      }, [name, value]);
      await settled(page);
      return (await picture(page)).rgb;
    };
    await settled(page);
    const whole = reference("small_0");
    const coarse = psnr(await choose("layers", "1"), whole);
    assert.ok(coarse > 8 && coarse < 30, `one layer of three: ${coarse.toFixed(1)} dB`);
    near(await choose("layers", "3"), whole, 45);
    assert.ok(psnr(await choose("background", "#ffffff"), whole) < 30);

    const widths = await page.evaluate(async () => {
      const { view } = document.querySelector("gsz-viewer");
      view.adapt(100); // a frame that took so many milliseconds
      const { resolution } = view;
      view.moveTo(view.pose);
      await new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame));
      const moving = view.renderer.pictures[0].width;
      await view.settled();
      return [resolution, moving, view.renderer.pictures[0].width];
    });
    assert.ok(widths[0] < 1 && widths[1] < 400 && widths[2] === 400, widths.join());
    await context.close();
  });

  test("the examples open: the element, and a .gsz in Spark and in the PlayCanvas engine", async () => {
    // Other programs have other rules: how near they come is in the documentation.
    for (const [name, least] of [["spark", 36], ["playcanvas", 28]]) {
      const { page, context, complaints } = await openPage(browser);
      await page.goto(`${server.url}/web/examples/${name}.html?src=/folder/small.gsz&cameras=${CAMERAS}`);
      await page.waitForFunction("window.frames_drawn > 8", null, { timeout: 60_000 });
      near((await picture(page)).rgb, reference("small_0"), least);
      assert.deepEqual(complaints, [], name);
      await context.close();
    }
    const { page, context, complaints } = await openPage(browser);
    await page.goto(`${server.url}/web/examples/element.html?src=/folder/small.gsz&cameras=${CAMERAS}&bare=`);
    await page.waitForFunction("document.querySelector('gsz-viewer').cameras.length > 0");
    await settled(page);
    near((await picture(page)).rgb, reference("small_0"), 45);
    assert.deepEqual(complaints, []);
    await context.close();
  });

  test("SuperSplat shows the levels of detail that gsz writes", async () => {
    const { page, context, complaints } = await openPage(browser);
    await page.goto(`${server.url}/folder/supersplat.html`);
    await page.waitForFunction("window.drawn > 6 || window.failed", null, { timeout: 90_000 });
    assert.equal(await page.evaluate("window.failed"), undefined);
    // Coarse levels come first.
    let shown = (await picture(page)).rgb;
    for (let turn = 0; turn < 40 && psnr(shown, reference("small_0")) < 25; turn++) {
      await page.waitForTimeout(500);
      shown = (await picture(page)).rgb;
    }
    near(shown, reference("small_0"), 25);
    assert.deepEqual(complaints, []);
    await context.close();
  });

  for (const [name, program, least] of [["three", "three.js", 25], ["playcanvas", "the PlayCanvas engine", 28]]) {
    const absent = existsSync(`${REPOSITORY}/web/node_modules/${name}`) ? false : `the package ${name} is not installed`;
    test(`${program} shows a .glb that gsz writes`, { skip: absent }, async () => {
      const { page, context, complaints } = await openPage(browser);
      await page.goto(`${server.url}/folder/gltf_${name}.html`);
      await page.waitForFunction("window.shown || window.failed", null, { timeout: 90_000 });
      assert.equal(await page.evaluate("window.failed"), undefined);
      near((await picture(page)).rgb, reference("small_0"), least);
      assert.deepEqual(complaints, []);
      await context.close();
    });
  }

  test("says what is wrong: no such file, a damaged one, no WebGL 2, a lost context", async () => {
    const missing = await open("missing.html");
    await settled(missing.page);
    assert.match(await said(missing.page), /nothing\.gsz could not be fetched: the server answered 404/);
    for (const [bytes, sentence] of [["[1, 2, 3, 4, 5, 6, 7, 8, 9]", /neither a \.gsz nor a \.ply/], ["[112, 108, 121, 10]", /header has no end/]]) {
      await missing.page.evaluate(`document.querySelector("gsz-viewer").load(0, new Uint8Array(${bytes}))`);
      await settled(missing.page);
      assert.match(await said(missing.page), sentence);
    }
    await missing.context.close();

    const lost = await open("small.html");
    await settled(lost.page);
    await lost.page.evaluate("(window.loss = document.querySelector('gsz-viewer').view.renderer.gl.getExtension('WEBGL_lose_context')).loseContext()");
    await lost.page.waitForFunction("document.querySelector('gsz-viewer').status.textContent.includes('context was lost')");
    await lost.page.evaluate("window.loss.restoreContext()");
    await lost.page.waitForFunction("document.querySelector('gsz-viewer').view.renderer");
    await settled(lost.page);
    near((await picture(lost.page)).rgb, reference("small_0"), 45); // It comes back.
    await lost.context.close();

    const plain = await launch(["--disable-3d-apis"]);
    const { page } = await openPage(plain);
    await page.goto(`${server.url}/folder/small.html`);
    await page.waitForFunction("document.querySelector('gsz-viewer').status.textContent.includes('WebGL 2')");
    await plain.close();
  });
});
