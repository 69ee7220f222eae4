import { add, minus } from "./camera.js";
import { startWorker } from "./start.js";

/** @typedef {import("./worker.js").Answer} Answer */
/** @typedef {import("./renderer.js").Renderer} Renderer */
/** @typedef {import("./renderer.js").Uploaded} Uploaded */
/** @typedef {import("./renderer.js").Pose} Pose */

/** @typedef {import("./worker.js").Tuning} Tuning */

/** The page's side of one model: its worker, and what it has on the GPU. */
export class Model {
  /**
   * @param {string | Uint8Array} source
   * @param {() => Renderer | null} renderer null while the context is lost
   * @param {() => void} changed is called when there is something new to draw or to say
   */
  constructor(source, renderer, changed) {
    this.source = source;
    this.renderer = renderer;
    this.changed = changed;
    /** @type {Uploaded | null} */
    this.uploaded = null;
    /** Gaussians of each layer. @type {number[]} */
    this.counts = [];
    /** For each layer that has arrived, how a model that ends with it is to be shown. @type {Tuning[]} */
    this.tunings = [];
    /** @type {Record<string, any>} */
    this.metadata = {};
    /** What is to be added to all positions, which float32 could not hold. */
    this.offset = [0, 0, 0];
    this.center = [0, 0, 0];
    this.radius = 1;
    this.received = 0;
    this.total = 0;
    this.loaded = false;
    this.error = "";
    /** What the order on the GPU was made for, and what is being sorted. */
    this.sortedFor = "";
    this.sortingFor = "";
    this.sortingLayers = 0;
    /** @type {Uint32Array | undefined} */
    this.spare = undefined;
    /** @type {((point: number[] | null) => void)[]} */
    this.picking = [];
    this.worker = startWorker();
    this.worker.onmessage = ({ data }) => {
      try {
        this.take(data);
      } catch (error) {
        this.error = /** @type {Error} */ (error).message;
      }
      this.changed();
    };
    this.worker.onerror = (event) => {
      this.error = `The worker stopped: ${event.message ?? "it could not be started"}.`;
      this.changed();
    };
    this.worker.postMessage({ load: source });
  }

  /** @param {Answer} answer */
  take({ header, layer, progress, sorted, picked, loaded, error }) {
    if (error) this.error = error;
    if (loaded) this.loaded = true;
    if (progress) ({ received: this.received, total: this.total } = progress);
    if (picked) this.picking.shift()?.(picked.point);
    const renderer = this.renderer();
    if (!renderer) return;
    if (header) {
      this.counts = header.counts;
      this.offset = header.offset;
      this.metadata = header.metadata;
      this.uploaded = renderer.allocate(header.rows, header.degree);
    }
    if (layer && this.uploaded) {
      renderer.upload(this.uploaded, layer.row, layer.packed);
      if (!this.tunings.length) {
        this.center = add(layer.center, this.offset);
        this.radius = layer.radius;
      }
      this.tunings.push(layer.tuning);
    }
    if (sorted && this.uploaded) {
      renderer.reorder(this.uploaded, sorted.order, sorted.count);
      Object.assign(this.uploaded, this.tunings[this.sortingLayers - 1]);
      this.spare = sorted.order;
      this.sortedFor = this.sortingFor;
      this.sortingFor = "";
    }
  }

  /** What an order depends on. @param {Pose} pose @param {number} layers */
  key({ position, forward }, layers) {
    return [Math.min(layers, this.tunings.length), ...position, ...forward].join();
  }

  /** Whether all that has arrived is in the right order for a camera. @param {Pose} pose @param {number} layers */
  isSorted(pose, layers) {
    return !this.tunings.length || this.sortedFor === this.key(pose, layers);
  }

  /** Asks for the order for a camera, unless it is there or another one is on its way. @param {Pose} pose @param {number} layers */
  sort(pose, layers) {
    if (this.sortingFor || this.isSorted(pose, layers)) return;
    this.sortingFor = this.key(pose, layers);
    this.sortingLayers = Math.min(layers, this.tunings.length);
    const order = this.spare;
    this.spare = undefined;
    const request = { eye: minus(pose.position, this.offset), forward: pose.forward, layers: this.sortingLayers, order };
    this.worker.postMessage({ sort: request }, order ? [order.buffer] : []);
  }

  /** The point that a ray meets, if any. @param {number[]} eye @param {number[]} direction @returns {Promise<number[] | null>} */
  pick(eye, direction) {
    this.worker.postMessage({ pick: { eye: minus(eye, this.offset), direction } });
    return new Promise((resolve) => this.picking.push((point) => resolve(point && add(point, this.offset))));
  }

  release() {
    this.worker.terminate();
    if (this.uploaded) this.renderer()?.release(this.uploaded);
    this.uploaded = null;
  }
}
