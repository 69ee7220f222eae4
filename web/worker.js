import { Arriving, GszDecoder, chunksOf, isGsz } from "./gsz.js";
import { isPly, readPly } from "./ply.js";
import { packSplats, ROW } from "./pack.js";
import { DepthSorter, NEAR_PLANE } from "./sort.js";

/** @typedef {import("./gsz.js").Splats} Splats */

/**
 * What the page asks of a worker, which holds one model.
 *
 * @typedef {{load: string | Uint8Array} | {sort: SortRequest} | {pick: {eye: number[], direction: number[]}}} Request
 *
 * @typedef {object} SortRequest
 * @property {number[]} eye
 * @property {number[]} forward
 * @property {number} layers how many of them are shown
 * @property {Uint32Array} [order] an earlier answer's, to be filled again
 */

/**
 * What a worker answers, each under its name.
 *
 * @typedef {object} Answer
 * @property {{rows: number, degree: number, counts: number[], offset: number[], metadata: Record<string, any>}} [header]
 * @property {{row: number, packed: ReturnType<typeof packSplats>, tuning: Tuning, center: number[], radius: number}} [layer]
 * @property {{received: number, total: number}} [progress] in bytes; a total of 0 is not known
 * @property {{order: Uint32Array, count: number}} [sorted]
 * @property {{point: number[] | null}} [picked]
 * @property {boolean} [loaded]
 * @property {string} [error]
 */

/** How a model that ends with a layer is shown. @typedef {{swelling: number, logitOffset: number}} Tuning */

/**
 * The correction for the layers after the next one. Where none was trained, Gaussians are a tenth larger for each layer
 * that is missing, two at most: the first of three layers gained 1.2 dB by it.
 *
 * @param {GszDecoder} decoder
 * @returns {Tuning}
 */
function tuningOf({ layers, layer }) {
  const missing = layers.length - 1 - layer;
  if (!missing) return { swelling: 1, logitOffset: 0 };
  const trained = layers.slice(0, -1).some(({ correction }) => correction.logScales || correction.opacityLogits);
  const { logScales, opacityLogits } = layers[layer].correction;
  return trained ? { swelling: Math.exp(logScales), logitOffset: opacityLogits } : { swelling: 1 + 0.1 * Math.min(missing, 2), logitOffset: 0 };
}

/** The positions of a model, layer by layer as they arrive. */
class Places {
  /** @param {number[]} counts Gaussians of each layer */
  constructor(counts) {
    this.counts = counts;
    /** Every layer begins a row of the textures. */
    this.rows = [0];
    for (const count of counts) this.rows.push(this.rows[this.rows.length - 1] + Math.ceil(count / ROW));
    this.capacity = this.rows[counts.length] * ROW;
    this.means = new Float32Array(3 * this.capacity);
    this.opacityLogits = new Float32Array(this.capacity);
    /** @type {{start: number, count: number}[]} */
    this.ranges = [];
    this.sorter = new DepthSorter(this.capacity);
  }

  /** @param {Splats} splats the next layer's */
  add({ count, means, opacityLogits }) {
    const start = this.rows[this.ranges.length] * ROW;
    this.means.set(means, 3 * start);
    this.opacityLogits.set(opacityLogits, start);
    this.ranges.push({ start, count });
  }

  /** @param {SortRequest} request */
  sort({ eye, forward, layers, order = new Uint32Array(this.capacity) }) {
    return { order, count: this.sorter.sort(this.means, this.ranges.slice(0, layers), eye, forward, order) };
  }

  /**
   * The nearest Gaussian of some opacity along a ray: within a cone of 0.3 degrees, else of 1, else of 3.
   *
   * @param {number[]} eye
   * @param {number[]} direction a unit vector
   * @returns {number[] | null}
   */
  pick([eyeX, eyeY, eyeZ], [x, y, z]) {
    const nearest = [Infinity, Infinity, Infinity];
    const slots = [-1, -1, -1];
    for (const { start, count } of this.ranges) {
      for (let i = start; i < start + count; i++) {
        if (this.opacityLogits[i] < 0) continue;
        const dx = this.means[3 * i] - eyeX;
        const dy = this.means[3 * i + 1] - eyeY;
        const dz = this.means[3 * i + 2] - eyeZ;
        const along = dx * x + dy * y + dz * z;
        if (!(along > NEAR_PLANE) || along > nearest[0]) continue;
        const aside = (dx * dx + dy * dy + dz * dz) / (along * along) - 1;
        for (let cone = 0, width = 2.7e-5; cone < 3; cone++, width *= 10) {
          if (aside < width && along < nearest[cone]) {
            nearest[cone] = along;
            slots[cone] = i;
          }
        }
      }
    }
    const slot = slots.find((found) => found >= 0) ?? -1;
    return slot < 0 ? null : [...this.means.subarray(3 * slot, 3 * slot + 3)];
  }
}

/** Middle and size of what there is, without the few far ones. @param {Splats} splats */
function extent({ count, means }) {
  const step = Math.max(1, Math.floor(count / 4096));
  const sample = Array.from({ length: Math.floor(count / step) }, (_, i) => i * step);
  const middle = (/** @type {number[]} */ values) => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
  const center = [0, 1, 2].map((axis) => middle(sample.map((i) => means[3 * i + axis])));
  const distance = (/** @type {number} */ i) => Math.hypot(...center.map((c, axis) => means[3 * i + axis] - c));
  return { center, radius: middle(sample.map(distance)) || 1 };
}

/**
 * Fetches or takes a file and decodes it while it arrives.
 *
 * @param {string | Uint8Array} source an absolute address, or the file
 * @param {(answer: Answer, transfer?: Transferable[]) => void} post
 * @param {(places: Places) => void} began
 */
async function load(source, post, began) {
  const arriving = new Arriving();
  /** @type {GszDecoder | undefined} */
  let decoder;
  let places = new Places([]);
  const begin = (/** @type {number} */ degree, /** @type {number[]} */ counts, offset = [0, 0, 0], metadata = {}) => {
    places = new Places(counts);
    began(places);
    post({ header: { rows: places.rows[counts.length], degree, counts, offset, metadata } });
  };
  const add = (/** @type {Splats} */ splats, tuning = { swelling: 1, logitOffset: 0 }) => {
    const row = places.rows[places.ranges.length];
    places.add(splats);
    const packed = packSplats(splats);
    const layer = { row, packed, tuning, ...extent(splats) };
    post({ layer }, [packed.shapes.buffer, packed.harmonics.buffer]);
  };
  for await (const { chunk, total } of arrivals(source)) {
    arriving.push(chunk);
    post({ progress: { received: arriving.length, total } });
    const bytes = arriving.bytes;
    if (bytes.length < 8 || isPly(bytes)) continue;
    if (!isGsz(bytes)) throw new Error("This is neither a .gsz nor a .ply file.");
    if (!decoder) {
      decoder = GszDecoder.open(bytes);
      if (decoder) begin(decoder.shDegree, decoder.layers.map(({ count }) => count), decoder.offset, decoder.metadata);
    }
    while (decoder?.ready(bytes)) {
      const tuning = tuningOf(decoder);
      add(decoder.next(bytes), tuning);
    }
  }
  if (isPly(arriving.bytes)) {
    const splats = readPly(arriving.bytes);
    begin(splats.shDegree, [splats.count]);
    add(splats);
  } else if (!decoder || decoder.layer < decoder.layers.length) {
    throw new Error(`The file ends early: ${places.ranges.length} of ${decoder?.layers.length ?? "its"} layers are whole.`);
  }
  post({ loaded: true });
}

/** @param {string | Uint8Array} source @returns {AsyncGenerator<{chunk: Uint8Array, total: number}>} */
async function* arrivals(source) {
  if (typeof source !== "string") {
    yield { chunk: source, total: source.length };
    return;
  }
  const name = source.startsWith("data:") ? "The embedded model" : decodeURI(source);
  const response = await fetch(source).catch(() => {
    throw new Error(`${name} could not be fetched: check the address, and that its server allows this page to read it.`);
  });
  if (!response.ok || !response.body) throw new Error(`${name} could not be fetched: the server answered ${response.status}.`);
  const total = Number(response.headers.get("content-length")) || 0;
  for await (const chunk of chunksOf(response.body)) yield { chunk, total };
}

/**
 * Makes a worker of the scope: it answers the page's requests.
 *
 * @param {{postMessage: (message: Answer, transfer: Transferable[]) => void, onmessage: ((event: MessageEvent) => void) | null}} scope
 */
export function serveModel(scope) {
  /** @type {Places | undefined} */
  let places;
  const post = (/** @type {Answer} */ answer, /** @type {Transferable[]} */ transfer = []) => scope.postMessage(answer, transfer);
  scope.onmessage = async ({ data }) => {
    try {
      if (data.load) await load(data.load, post, (begun) => (places = begun));
      if (data.sort && places) {
        const sorted = places.sort(data.sort);
        post({ sorted }, [sorted.order.buffer]);
      }
      if (data.pick) post({ picked: { point: places?.pick(data.pick.eye, data.pick.direction) ?? null } });
    } catch (error) {
      post({ error: error instanceof RangeError ? "There is not enough memory for this model." : /** @type {Error} */ (error).message });
    }
  };
}
