import { add, dot, facing, minus, times, turned } from "./camera.js";

/** @typedef {import("./splatview.js").SplatView} SplatView */
/** @typedef {import("./renderer.js").Pose} Pose */

const STEEPEST = 0.996; // cosine of the angle between view and vertical, 5 degrees
/** A tap on a key moves as holding it for so long does. */
const FIRST_STEP_MS = 50;
/** Keys that move the camera while they are held: along right, down and forward. @type {Record<string, number[]>} */
const MOVES = {
  KeyA: [-1, 0, 0], ArrowLeft: [-1, 0, 0], KeyD: [1, 0, 0], ArrowRight: [1, 0, 0],
  KeyW: [0, 0, 1], ArrowUp: [0, 0, 1], KeyS: [0, 0, -1], ArrowDown: [0, 0, -1],
  KeyE: [0, -1, 0], KeyQ: [0, 1, 0],
};

/**
 * Mouse, touch and keyboard on a view.
 *
 * Dragging turns about the target, or with `fly` the camera about itself; with Shift, the right button or two fingers it
 * moves the view; the wheel or a pinch comes nearer; a double click sets the target; W A S D Q E and the arrows fly.
 */
export class Controls {
  /** @param {SplatView} view */
  constructor(view) {
    this.view = view;
    this.fly = false;
    /** @type {Map<number, {x: number, y: number}>} */
    this.pointers = new Map();
    /** @type {Set<string>} */
    this.held = new Set();
    this.heldAt = 0;
    const { canvas } = view;
    canvas.style.touchAction = "none";
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.focus();
      this.pointers.set(event.pointerId, at(event));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.pointers.delete(/** @type {PointerEvent} */ (event).pointerId));
    }
    canvas.addEventListener("pointermove", (event) => this.dragged(event));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.nearer(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 600))));
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", (event) => this.aim(event.offsetX, event.offsetY));
    canvas.addEventListener("keydown", (event) => this.pressed(event));
    canvas.addEventListener("keyup", (event) => this.held.delete(event.code));
    canvas.addEventListener("blur", () => this.held.clear());
  }

  /** @param {PointerEvent} event */
  dragged(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.view.pose) return;
    const now = at(event);
    const dx = now.x - before.x;
    const dy = now.y - before.y;
    this.pointers.set(event.pointerId, now);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1] ?? now;
      const apart = (/** @type {{x: number, y: number}} */ point) => Math.hypot(point.x - other.x, point.y - other.y);
      this.nearer(apart(before) / Math.max(apart(now), 1));
      this.pan(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 6) this.pan(dx, dy);
    else this.turn(dx, dy);
  }

  /** Turns by a drag of so many pixels. @param {number} dx @param {number} dy */
  turn(dx, dy) {
    const { view } = this;
    const pose = /** @type {Pose} */ (view.pose);
    const perPixel = (this.fly ? -1.5 : 4) / view.canvas.clientHeight;
    const center = this.fly ? pose.position : view.target;
    /** @type {(axis: number[], angle: number, from: Pose) => Pose} */
    const about = (axis, angle, from) => ({
      ...from,
      position: add(center, turned(minus(from.position, center), axis, angle)),
      right: turned(from.right, axis, angle),
      forward: turned(from.forward, axis, angle),
    });
    // About the vertical as seen: `up` points up on the screen, so a drag to the right turns what is seen to the right.
    const sideways = about(view.up, -dx * perPixel, pose);
    const tilted = about(sideways.right, -dy * perPixel, sideways);
    const steep = Math.abs(dot(tilted.forward, view.up));
    const next = steep > STEEPEST && steep > Math.abs(dot(sideways.forward, view.up)) ? sideways : tilted;
    view.moveTo(facing(next, next.forward));
  }

  /** Moves view and target by so many pixels. @param {number} dx @param {number} dy */
  pan(dx, dy) {
    const { view } = this;
    const pose = /** @type {Pose} */ (view.pose);
    const perPixel = (this.distance() * pose.height) / (pose.fy * view.canvas.clientHeight);
    this.shift(add(times(pose.right, -dx * perPixel), times(pose.down, -dy * perPixel)));
  }

  /** @param {number} factor of the distance to the target */
  nearer(factor) {
    const { view } = this;
    const { pose } = view;
    if (!pose) return;
    if (this.fly) return this.shift(times(pose.forward, this.distance() * (1 - factor)));
    view.moveTo({ ...pose, position: add(view.target, times(minus(pose.position, view.target), factor)) });
  }

  /** Turns about what is visible there from now on, and looks at it. @param {number} x @param {number} y */
  async aim(x, y) {
    const { view } = this;
    const point = await view.pointAt(x, y);
    const { pose } = view;
    if (!point || !pose) return;
    view.moveTo(facing(pose, minus(point, pose.position)), point);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.code === "KeyF") this.fly = !this.fly;
    else if (event.key === "+" || event.key === "=") this.nearer(1 / 1.15);
    else if (event.key === "-") this.nearer(1.15);
    else if (MOVES[event.code]) {
      const still = !this.held.size;
      this.held.add(event.code);
      if (still) this.glide((this.heldAt = performance.now()) + FIRST_STEP_MS);
    } else return;
    event.preventDefault();
  }

  /** Moves by what keys are held, at the distance to the target in a second and a half. @param {number} time */
  glide(time) {
    const { pose } = this.view;
    if (!this.held.size || !pose) return;
    const step = (this.distance() * Math.max(0, Math.min(time - this.heldAt, 100))) / 1500;
    this.heldAt = time;
    let by = [0, 0, 0];
    for (const code of this.held) {
      const [x, y, z] = MOVES[code];
      by = add(by, add(times(pose.right, x), add(times(pose.down, y), times(pose.forward, z))));
    }
    this.shift(times(by, step));
    requestAnimationFrame((next) => this.glide(next));
  }

  /** @param {number[]} by */
  shift(by) {
    const { view } = this;
    const pose = /** @type {Pose} */ (view.pose);
    view.moveTo({ ...pose, position: add(pose.position, by) }, add(view.target, by));
  }

  distance() {
    const { pose, target } = this.view;
    return pose ? Math.max(Math.hypot(...minus(pose.position, target)), 1e-3) : 1;
  }
}

/** @param {PointerEvent} event */
const at = ({ clientX, clientY }) => ({ x: clientX, y: clientY });
