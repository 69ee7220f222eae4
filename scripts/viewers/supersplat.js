// SuperSplat's viewer, of which the PlayCanvas engine is a part. It turns models half about z.
import { createViewer } from "@playcanvas/supersplat-viewer/viewer.js";
import { defaultSettings } from "@playcanvas/supersplat-viewer/settings.js";
import * as pc from "playcanvas";

import { aspectOf, matrixOf, pause, verticalDegrees } from "./camera.js";

export async function show({ file, camera }) {
  const getContext = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, options) {
    return getContext.call(this, kind, { ...options, preserveDrawingBuffer: true });
  };
  const style = document.head.appendChild(document.createElement("link"));
  Object.assign(style, { rel: "stylesheet", href: "/node_modules/@playcanvas/supersplat-viewer/dist/viewer.css" });
  const container = document.body.appendChild(document.createElement("div"));
  container.style.cssText = `position: absolute; inset: 0; width: ${camera.width}px; height: ${camera.height}px`;
  document.head.appendChild(document.createElement("style")).textContent = `canvas { position: absolute; inset: 0; width: ${camera.width}px !important; height: ${camera.height}px !important }`;
  const settings = defaultSettings();
  settings.background.color = [0, 0, 0];
  settings.tonemapping = "none";
  const viewer = await createViewer({ container, settings, contentUrl: file, renderer: "webgl", ui: false, noanim: true });
  if (!viewer.state.loaded) await new Promise((loaded) => viewer.events.on("loaded:changed", loaded));
  const matrix = new pc.Mat4().setFromEulerAngles(0, 0, 180);
  matrix.mul2(matrix.clone(), new pc.Mat4().set(matrixOf(camera)));
  viewer.app.on("update", () => {
    const eye = viewer.app.root.findByName("camera");
    eye.setPosition(matrix.getTranslation());
    eye.setRotation(new pc.Quat().setFromMat4(matrix));
    Object.assign(eye.camera, {
      horizontalFov: false, fov: verticalDegrees(camera), aspectRatioMode: pc.ASPECT_MANUAL,
      aspectRatio: aspectOf(camera), nearClip: 0.05, farClip: 1000,
    });
    viewer.app.renderNextFrame = true;
  });
  await pause(8000);
  for (let frame = 0; frame < 3; frame++) await new Promise((ended) => viewer.app.once("frameend", ended));
  return viewer.app.graphicsDevice.canvas;
}
