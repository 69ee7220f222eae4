/** @typedef {import("./renderer.js").Pose} Pose */
/** @typedef {number[]} Vector three numbers */

/**
 * An entry of INRIA's `cameras.json`.
 *
 * @typedef {object} CameraEntry
 * @property {string} [img_name]
 * @property {number[]} position
 * @property {number[][]} rotation its columns are the camera's axes in the world: x right, y down, z forward
 * @property {number} fx focal lengths and size in pixels
 * @property {number} fy
 * @property {number} width
 * @property {number} height
 * @property {number} [cx] the principal point; the middle where it is not given
 * @property {number} [cy]
 */

/** @param {Vector} a @param {Vector} b @returns {Vector} */
export const add = (a, b) => a.map((value, i) => value + b[i]);
/** @param {Vector} a @param {number} factor @returns {Vector} */
export const times = (a, factor) => a.map((value) => value * factor);
/** @param {Vector} a @param {Vector} b @returns {Vector} */
export const minus = (a, b) => a.map((value, i) => value - b[i]);
/** @param {Vector} a @param {Vector} b */
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
/** @param {Vector} a @param {Vector} b @returns {Vector} */
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
/** @param {Vector} a @returns {Vector} */
export const unit = (a) => times(a, 1 / (Math.hypot(...a) || 1));

/** A vector turned about a unit axis (Rodrigues' formula). @param {Vector} vector @param {Vector} axis @param {number} angle */
export function turned(vector, axis, angle) {
  const along = times(axis, dot(axis, vector) * (1 - Math.cos(angle)));
  return add(add(times(vector, Math.cos(angle)), times(cross(axis, vector), Math.sin(angle))), along);
}

/** @param {CameraEntry} entry @returns {Pose} */
export function poseOf({ position, rotation, fx, fy, width, height, cx = width / 2, cy = height / 2 }) {
  const axis = (/** @type {number} */ k) => unit(rotation.map((row) => row[k]));
  const pose = { position: [...position], right: axis(0), down: axis(1), forward: axis(2), fx, fy, cx, cy, width, height };
  if (![...position, ...rotation.flat(), fx, fy, cx, cy].every(Number.isFinite)) throw new Error("A camera has values that are no numbers.");
  return pose;
}

/**
 * The camera that looks along another vector, its right as far as that allows. What rounding has added up over thousands
 * of turns is taken out of its axes.
 *
 * @param {Pose} pose
 * @param {Vector} along
 * @returns {Pose}
 */
export function facing(pose, along) {
  const forward = unit(along);
  const right = unit(minus(pose.right, times(forward, dot(forward, pose.right))));
  return { ...pose, forward, right, down: cross(forward, right) };
}

/**
 * A camera that looks at a target from a distance, upright, with a field of view of 60 degrees.
 *
 * @param {Vector} target
 * @param {Vector} forward a unit vector
 * @param {Vector} up
 * @param {number} distance
 * @returns {Pose}
 */
export function lookingAt(target, forward, up, distance) {
  const level = cross(forward, up);
  return facing({
    position: minus(target, times(forward, distance)), down: up, forward,
    right: Math.hypot(...level) > 1e-6 ? level : cross(forward, [up[1], up[2], up[0]]),
    fx: 866, fy: 866, cx: 500, cy: 500, width: 1000, height: 1000,
  }, forward);
}

/** The same view for a picture of another size: what the camera saw fits into it. @param {Pose} pose @param {number} width @param {number} height */
export function fitted(pose, width, height) {
  const scale = Math.min(width / pose.width, height / pose.height);
  return {
    ...pose, width, height, fx: pose.fx * scale, fy: pose.fy * scale,
    cx: width / 2 + (pose.cx - pose.width / 2) * scale, cy: height / 2 + (pose.cy - pose.height / 2) * scale,
  };
}
