import { add, fitted, lookingAt, minus, poseOf, times, unit } from "./camera.js";
import { Model } from "./model.js";
import { Renderer } from "./renderer.js";

/** @typedef {import("./renderer.js").Pose} Pose */
/** @typedef {import("./camera.js").CameraEntry} CameraEntry */
/** @typedef {"first" | "second" | "split" | "difference"} Look */

/** What can be shown of two models. @type {Look[]} */
export const LOOKS = ["first", "second", "split", "difference"];
const STILL_AFTER_MS = 180;
const SLOW_FRAME_MS = 45;
const FAST_FRAME_MS = 22;
const COARSEST = 0.25;

/**
 * One or two models of Gaussians on a canvas.
 *
 * Models are decoded and sorted in workers. A frame is drawn when something has changed; while the camera moves and
 * frames are slow, it has fewer pixels.
 */
export class SplatView {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} [onchange] is called when there is something new to say: progress, a layer, an error
   */
  constructor(canvas, onchange = () => {}) {
    this.canvas = canvas;
    this.onchange = onchange;
    /** @type {(Model | null)[]} */
    this.models = [null, null];
    /** The view, with the lens and the size of the photograph that it is of. @type {Pose | null} */
    this.pose = null;
    /** Which way is up; COLMAP's scenes have y pointing down. */
    this.up = [0, -1, 0];
    /** What dragging turns about. */
    this.target = [0, 0, 0];
    this.background = [0, 0, 0];
    /** @type {Look} */
    this.look = "first";
    /** Where the split is, as a share of the width. */
    this.split = 0.5;
    /** What a difference is multiplied by. */
    this.gain = 10;
    /** How many layers are shown at most. */
    this.layers = Infinity;
    this.error = "";
    /** @type {Renderer | null} */
    this.renderer = null;
    this.resolution = 1;
    this.movedAt = -Infinity;
    this.drawnAt = 0;
    this.requested = 0;
    this.wasMoving = false;
    /** @type {(() => void)[]} */
    this.waiting = [];
    this.start();
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.renderer = null;
      this.error = "The graphics context was lost. The picture returns when the browser gives it back; else reload the page.";
      this.onchange();
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this.start();
      this.models.forEach((model, which) => model && this.load(/** @type {0 | 1} */ (which), model.source));
    });
    this.sized = new ResizeObserver(() => this.redraw());
    this.sized.observe(canvas);
  }

  start() {
    try {
      this.error = "";
      this.renderer = new Renderer(this.canvas);
    } catch (error) {
      this.error = /** @type {Error} */ (error).message;
    }
  }

  /**
   * Shows a model, in place of the one before it.
   *
   * @param {0 | 1} which the first one, or the second that it is compared with
   * @param {string | Uint8Array} source the address of a .gsz or .ply file, or its bytes
   */
  load(which, source) {
    this.models[which]?.release();
    const from = typeof source === "string" ? new URL(source, document.baseURI).href : source;
    this.models[which] = new Model(from, () => this.renderer, () => {
      this.placeCamera();
      this.redraw();
      this.onchange();
    });
    this.redraw();
  }

  /** Without a camera, the first layer that arrives is looked at from in front. */
  placeCamera() {
    const model = this.models[0];
    if (this.pose || !model?.tunings.length) return;
    const { up, camera } = model.metadata;
    if (Array.isArray(up) && up.length === 3 && Math.hypot(...up) > 0) this.up = unit(up);
    try {
      if (camera) return this.goTo(camera);
    } catch {
      // A file's camera that is none is no reason to show nothing.
    }
    this.target = model.center;
    this.pose = lookingAt(model.center, [0, 0, 1], this.up, 2.5 * model.radius);
  }

  /** Looks as a camera of `cameras.json` does. @param {CameraEntry} entry */
  goTo(entry) {
    const pose = poseOf(entry);
    const ahead = this.models[0]?.center ?? this.target;
    const distance = Math.hypot(...minus(pose.position, ahead)) || 1;
    this.moveTo(pose, add(pose.position, times(pose.forward, distance)));
  }

  /** @param {Pose} pose @param {number[]} [target] what dragging turns about from now on */
  moveTo(pose, target = this.target) {
    this.pose = pose;
    this.target = target;
    this.movedAt = performance.now();
    this.redraw();
  }

  /** The unit vector into the scene at a place on the canvas. @param {number} x pixels of the page @param {number} y */
  rayAt(x, y) {
    const { clientWidth, clientHeight } = this.canvas;
    const pose = fitted(/** @type {Pose} */ (this.pose), clientWidth, clientHeight);
    const across = times(pose.right, (x - pose.cx) / pose.fx);
    return unit(add(pose.forward, add(across, times(pose.down, (y - pose.cy) / pose.fy))));
  }

  /** What is visible at a place on the canvas, if anything. @param {number} x @param {number} y @returns {Promise<number[] | null>} */
  async pointAt(x, y) {
    const model = this.models[this.look === "second" ? 1 : 0] ?? this.models[0];
    if (!model || !this.pose) return null;
    return model.pick(this.pose.position, this.rayAt(x, y));
  }

  /** Draws in the next frame. */
  redraw() {
    this.requested ||= requestAnimationFrame((time) => {
      this.requested = 0;
      this.frame(time);
    });
  }

  /** Resolves when everything that is to be loaded is shown, sorted, at full resolution. @returns {Promise<void>} */
  settled() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.redraw();
    });
  }

  /** @param {number} time */
  frame(time) {
    const { renderer, canvas, pose } = this;
    const moving = time - this.movedAt < STILL_AFTER_MS;
    if (moving && this.wasMoving) this.adapt(time - this.drawnAt);
    this.wasMoving = moving;
    this.drawnAt = time;
    if (moving) this.redraw();
    const ratio = Math.min(devicePixelRatio, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (!renderer || renderer.gl.isContextLost() || !pose) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });

    const scale = moving ? this.resolution : 1;
    const seen = fitted(pose, Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
    const mode = this.models[1] ? LOOKS.indexOf(this.look) : 0;
    const wanted = /** @type {(0 | 1)[]} */ (mode === 0 ? [0] : mode === 1 ? [1] : [0, 1]);
    for (const which of wanted) {
      const model = this.models[which];
      model?.sort(pose, this.layers);
      const position = minus(seen.position, model?.offset ?? [0, 0, 0]);
      renderer.draw(which, model?.uploaded ?? null, { ...seen, position });
    }
    renderer.show({ mode, split: this.split, gain: this.gain, background: this.background });

    const models = wanted.map((which) => this.models[which]).filter((model) => model !== null);
    const done = models.every((model) => model.error || (model.loaded && model.isSorted(pose, this.layers)));
    if (!moving && done) for (const resolve of this.waiting.splice(0)) resolve();
  }

  /** Fewer pixels where frames are slow, more where they are fast. @param {number} milliseconds since the last frame */
  adapt(milliseconds) {
    if (milliseconds > SLOW_FRAME_MS) this.resolution = Math.max(COARSEST, this.resolution * 0.75);
    else if (milliseconds < FAST_FRAME_MS) this.resolution = Math.min(1, this.resolution * 1.1);
  }

  release() {
    for (const model of this.models) model?.release();
    this.models = [null, null];
    this.sized.disconnect();
    cancelAnimationFrame(this.requested);
  }
}
