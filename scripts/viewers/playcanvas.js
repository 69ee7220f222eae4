// The PlayCanvas engine, which SuperSplat is made with.
// Its camera has to be told that what it draws is for a display (gammaCorrection), or pictures come out dark.
import * as pc from "playcanvas";

import { aspectOf, matrixOf, pause, turnOf, verticalDegrees } from "./camera.js";

export async function show({ file, camera, turn }) {
  const canvas = document.body.appendChild(document.createElement("canvas"));
  const getContext = canvas.getContext.bind(canvas);
  canvas.getContext = (kind, options) => getContext(kind, { ...options, preserveDrawingBuffer: true });
  const device = await pc.createGraphicsDevice(canvas, { deviceTypes: ["webgl2"], antialias: false });
  const app = new pc.Application(canvas, { graphicsDevice: device });
  app.setCanvasFillMode(pc.FILLMODE_NONE, camera.width, camera.height);
  app.setCanvasResolution(pc.RESOLUTION_FIXED, camera.width, camera.height);
  app.start();
  const kind = file.endsWith(".glb") ? "container" : "gsplat";
  const asset = new pc.Asset("model", kind, { url: file });
  await new Promise((loaded, failed) => {
    asset.once("load", loaded);
    asset.once("error", failed);
    app.assets.add(asset);
    app.assets.load(asset);
  });
  const model = kind === "container" ? asset.resource.instantiateRenderEntity() : new pc.Entity();
  if (kind === "gsplat") model.addComponent("gsplat", { asset });
  const holder = new pc.Entity();
  holder.addChild(model);
  holder.setLocalEulerAngles(...turnOf(turn).map((angle) => (angle * 180) / Math.PI));
  app.root.addChild(holder);
  const eye = new pc.Entity();
  eye.addComponent("camera", {
    clearColor: new pc.Color(0, 0, 0),
    nearClip: 0.05,
    toneMapping: pc.TONEMAP_NONE,
    gammaCorrection: pc.GAMMA_SRGB,
    fov: verticalDegrees(camera),
    aspectRatioMode: pc.ASPECT_MANUAL,
    aspectRatio: aspectOf(camera),
  });
  app.root.addChild(eye);
  const matrix = new pc.Mat4();
  matrix.data.set(matrixOf(camera));
  eye.setPosition(...camera.position);
  eye.setRotation(new pc.Quat().setFromMat4(matrix));
  await pause(5000);
  for (let frame = 0; frame < 3; frame++) await new Promise((ended) => app.once("frameend", ended));
  return canvas;
}
