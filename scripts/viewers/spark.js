// Spark, for three.js. Its defaults treat a model as trained with antialiasing; these options are INRIA's rules.
import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
import * as THREE from "three";

import { aspectOf, matrixOf, pause, turnOf, verticalDegrees } from "./camera.js";

export async function show({ file, camera, turn, options }) {
  const renderer = new THREE.WebGLRenderer({ antialias: false, preserveDrawingBuffer: true });
  renderer.setSize(camera.width, camera.height);
  document.body.append(renderer.domElement);
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(0, 0, 0);
  const spark = new SparkRenderer({ renderer, ...options });
  scene.add(spark);
  const mesh = new SplatMesh({ url: file });
  await mesh.initialized;
  mesh.rotation.set(...turnOf(turn));
  scene.add(mesh);
  const eye = new THREE.PerspectiveCamera(verticalDegrees(camera), aspectOf(camera), 0.1, 1000);
  new THREE.Matrix4().fromArray(matrixOf(camera)).decompose(eye.position, eye.quaternion, eye.scale);
  for (let frame = 0; frame < 7; frame++) {
    renderer.render(scene, eye);
    await pause(500);
  }
  renderer.render(scene, eye);
  return renderer.domElement;
}
