// three.js' own splats. Colors are those of the display, so that they must not be turned into them once more.
import * as THREE from "three/webgpu";

import { aspectOf, matrixOf, pause, turnOf, verticalDegrees } from "./camera.js";

const { GaussianSplat } = await import("three/addons/objects/GaussianSplat.js");

async function load(file) {
  if (file.endsWith(".glb")) {
    const { GLTFLoader } = await import("three/addons/loaders/GLTFLoader.js");
    const { GLTFGaussianSplatLoaderExtension } = await import(
      "three/addons/loaders/GLTFGaussianSplatLoaderExtension.js"
    );
    const loader = new GLTFLoader().register((parser) => new GLTFGaussianSplatLoaderExtension(parser));
    return (await loader.loadAsync(file)).scene;
  }
  const name = { spz: "SPZLoader", ply: "GaussianSplatPLYLoader" }[file.split(".").pop()];
  if (!name) throw new Error("there is no loader for this format");
  const module = await import(`three/addons/loaders/${name}.js`);
  return new GaussianSplat(await new module[name]().loadAsync(file));
}

export async function show({ file, camera, turn }) {
  const renderer = new THREE.WebGPURenderer({ antialias: false, forceWebGL: true });
  renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
  await renderer.init();
  renderer.setSize(camera.width, camera.height);
  document.body.append(renderer.domElement);
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(0, 0, 0);
  const model = await load(file);
  const holder = new THREE.Group().add(model);
  holder.rotation.set(...turnOf(turn));
  scene.add(holder);
  const eye = new THREE.PerspectiveCamera(verticalDegrees(camera), aspectOf(camera), 0.1, 1000);
  new THREE.Matrix4().fromArray(matrixOf(camera)).decompose(eye.position, eye.quaternion, eye.scale);
  for (let frame = 0; frame < 4; frame++) {
    renderer.render(scene, eye);
    await pause(700);
  }
  renderer.render(scene, eye);
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [camera.width, camera.height];
  copy.getContext("2d").drawImage(renderer.domElement, 0, 0);
  return copy;
}
