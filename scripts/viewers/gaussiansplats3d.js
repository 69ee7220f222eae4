// GaussianSplats3D, for three.js. It takes SharedArrayBuffers unless it is told that this server allows none.
import * as GaussianSplats3D from "@mkkellogg/gaussian-splats-3d";
import * as THREE from "three";

import { aspectOf, matrixOf, pause, turnOf, verticalDegrees } from "./camera.js";

export async function show({ file, camera, turn }) {
  const renderer = new THREE.WebGLRenderer({ antialias: false, preserveDrawingBuffer: true });
  renderer.setSize(camera.width, camera.height);
  document.body.append(renderer.domElement);
  const eye = new THREE.PerspectiveCamera(verticalDegrees(camera), aspectOf(camera), 0.05, 1000);
  new THREE.Matrix4().fromArray(matrixOf(camera)).decompose(eye.position, eye.quaternion, eye.scale);
  eye.updateMatrixWorld(); // The first order is that of this matrix.
  const viewer = new GaussianSplats3D.Viewer({
    renderer, camera: eye, selfDrivenMode: false, useBuiltInControls: false, sharedMemoryForWorkers: false,
    gpuAcceleratedSort: false, sphericalHarmonicsDegree: 2,
    sceneRevealMode: GaussianSplats3D.SceneRevealMode.Instant,
  });
  const rotation = new THREE.Quaternion().setFromEuler(new THREE.Euler(...turnOf(turn))).toArray();
  await viewer.addSplatScene(file, { showLoadingUI: false, progressiveLoad: false, splatAlphaRemovalThreshold: 1, rotation });
  for (let frame = 0; frame < 12; frame++) {
    viewer.update();
    viewer.render();
    await pause(500);
  }
  viewer.update();
  viewer.render();
  return renderer.domElement;
}
