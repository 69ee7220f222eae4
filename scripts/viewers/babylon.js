// Babylon.js, whose world is left-handed with y up: its loaders turn the y of files with INRIA's axes over. What it needs for
// .sog and .spz it fetches from elsewhere, unless it is given one and told to take its own parser for the other.
import { FreeCamera } from "@babylonjs/core/Cameras/freeCamera.js";
import { Engine } from "@babylonjs/core/Engines/engine.js";
import { ImportMeshAsync } from "@babylonjs/core/Loading/sceneLoader.js";
import { Color4 } from "@babylonjs/core/Maths/math.color.js";
import { Matrix, Vector3 } from "@babylonjs/core/Maths/math.vector.js";
import { TransformNode } from "@babylonjs/core/Meshes/transformNode.js";
import { Scene } from "@babylonjs/core/scene.js";
import "@babylonjs/loaders/SPLAT/index.js";
import "@babylonjs/loaders/glTF/2.0/index.js";

import * as fflate from "fflate";

import { aspectOf, pause, turnOf, verticalDegrees } from "./camera.js";

export async function show({ file, camera, turn }) {
  const canvas = document.body.appendChild(document.createElement("canvas"));
  [canvas.width, canvas.height] = [camera.width, camera.height];
  const engine = new Engine(canvas, false, { preserveDrawingBuffer: true });
  const scene = new Scene(engine);
  scene.clearColor = new Color4(0, 0, 0, 1);
  const { meshes } = await ImportMeshAsync(file, scene, { pluginOptions: { splat: { fflate, spzLibraryUrl: undefined } } });
  const holder = new TransformNode("holder", scene);
  // Its glTF loader turns the model half about y, which with the other hand is where INRIA's axes are.
  holder.rotation = new Vector3(...turnOf(file.endsWith(".glb") ? "none" : turn));
  for (const mesh of meshes) if (!mesh.parent) mesh.parent = holder;
  const flipped = ([x, y, z]) => new Vector3(x, -y, z);
  const axis = (column) => camera.rotation.map((row) => row[column]);
  const eye = new FreeCamera("eye", flipped(camera.position), scene);
  eye.upVector = flipped(axis(1)).scale(-1);
  eye.setTarget(eye.position.add(flipped(axis(2))));
  const degrees = (verticalDegrees(camera) * Math.PI) / 180;
  eye.freezeProjectionMatrix(Matrix.PerspectiveFovLH(degrees, aspectOf(camera), 0.05, 1000, engine.isNDCHalfZRange));
  await scene.whenReadyAsync();
  for (let frame = 0; frame < 8; frame++) {
    scene.render();
    await pause(500);
  }
  scene.render();
  return canvas;
}
