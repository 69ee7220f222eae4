/**
 * A decoder of `.gsz` files, version 2, written from docs/formats.md. It has no dependencies and runs in browsers,
 * workers and Node; machines are little-endian, as all that run these are.
 *
 *     const splats = decode(bytes);
 *     for await (const layer of decodeLayers(response.body)) show(layer);
 */

/**
 * A model, or a layer of one: `count` Gaussians, their values before activation, as in INRIA's PLY.
 *
 * @typedef {object} Splats
 * @property {number} count
 * @property {number} shDegree 0 to 3
 * @property {Float32Array} means 3 a Gaussian, world units
 * @property {Float32Array} logScales 3 a Gaussian, natural logarithms of standard deviations
 * @property {Float32Array} quaternions 4 a Gaussian, w x y z
 * @property {Float32Array} opacityLogits 1 a Gaussian, before the sigmoid
 * @property {Float32Array} shDc 3 a Gaussian, RGB
 * @property {Float32Array} shRest 3 K a Gaussian, coefficient by coefficient, RGB each
 */

/** @typedef {"means" | "opacities" | "scales" | "rotations" | "dc" | "sh" | "padding"} SectionName */
/**
 * What is added to all log-scales and opacity logits of a model that ends with a certain layer, to make up for those
 * that it lacks. Of the last layer it means nothing.
 *
 * @typedef {{logScales: number, opacityLogits: number}} Correction
 */
/** @typedef {{count: number, correction: Correction, end: number, sections: Record<SectionName, {start: number, end: number, crc: number}>}} Layer */

const MAGIC = [0x89, 0x47, 0x53, 0x5a, 0x0d, 0x0a, 0x1a, 0x0a];
const PREFIX_BYTES = 48;
const LAYER_BYTES = 68;
const MOST_LAYERS = 16;
const LARGEST_MEAN = 3e38;
/** @type {SectionName[]} */
const SECTIONS = ["means", "opacities", "scales", "rotations", "dc", "sh", "padding"];
export const ARRAYS = /** @type {const} */ (["means", "logScales", "quaternions", "opacityLogits", "shDc", "shRest"]);

const LANES = 8;
const CHUNK = 1 << 14;
const ONE = 4096;
/** Contexts look at the Gaussians 8, 16, ... 64 places before. */
const NEIGHBORS = 8;
const HISTORY = NEIGHBORS * LANES;

const BAD_HEADER = "the header contradicts itself";

/** @param {string} problem @returns {never} */
function refuse(problem) {
  throw new Error(`gsz: ${problem}`);
}

const CRC_TABLE = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** @param {Uint8Array} bytes @param {number} [before] the CRC-32 of what precedes them */
function crc32(bytes, before = 0) {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => (value < low ? low : value > high ? high : value);
/** What a token of a signed column that is its own size stands for. @param {number} token */
const signedOf = (token) => (token & 1 ? -(token >> 1) : token >> 1);

/** The learning distributions of tokens below `size` in some contexts. */
class Tables {
  /** @param {number} contexts @param {number} size */
  constructor(contexts, size) {
    this.contexts = contexts;
    this.size = size;
    this.counts = new Uint32Array(contexts * size);
    this.totals = new Float64Array(contexts);
    /** The symbols of a context, and of all contexts, when it was last built. */
    this.ownBuilt = new Float64Array(contexts).fill(-1);
    this.allBuilt = new Float64Array(contexts);
    /** Where each token's slots begin, with the end of the last. */
    this.starts = new Uint16Array(contexts * (size + 1));
    /** The token of every sixteenth slot, from which a search begins. */
    this.guide = new Uint8Array(contexts * 256);
    this.parent = new Float64Array(size);
    this.weights = new Float64Array(size);
    this.rebuild();
  }

  /** Shares 4096 slots out by `weights`; what is left goes to the first heaviest. @param {Float64Array} into */
  share(into) {
    const { weights, size } = this;
    let sum = 0;
    let heaviest = 0;
    for (let v = 0; v < size; v++) {
      sum += weights[v];
      if (weights[v] > weights[heaviest]) heaviest = v;
    }
    let left = ONE;
    for (let v = 0; v < size; v++) left -= into[v] = 1 + (((weights[v] * (ONE - size)) / sum) | 0);
    into[heaviest] += left;
  }

  /** Brings the contexts that have learnt enough up to their counts. */
  rebuild() {
    const { contexts, size, counts, totals, parent, weights, starts, guide } = this;
    let all = 0;
    weights.fill(0); // How often each token came in all contexts, until they are shared out.
    for (let k = 0, at = 0; k < contexts; k++) {
      let own = 0;
      for (let v = 0; v < size; v++) {
        const count = counts[at++];
        weights[v] += count;
        own += count;
      }
      totals[k] = own;
      all += own;
    }
    let parentKnown = false;
    for (let k = 0; k < contexts; k++) {
      const before = this.ownBuilt[k];
      if (before >= 0 && 4 * totals[k] < 5 * before + 4 && all < 2 * this.allBuilt[k]) continue;
      this.ownBuilt[k] = totals[k];
      this.allBuilt[k] = Math.max(all, 64);
      if (!parentKnown) {
        parentKnown = true;
        for (let v = 0; v < size; v++) weights[v] = weights[v] * 256 + Math.floor(4096 / (v + 2));
        this.share(parent);
      }
      const row = k * (size + 1);
      for (let v = 0; v < size; v++) weights[v] = counts[k * size + v] * ONE + 24 * parent[v];
      this.share(weights);
      for (let v = 0, start = 0, g = 0; v < size; v++) {
        starts[row + v + 1] = start += weights[v];
        while (16 * g < start) guide[256 * k + g++] = v;
      }
    }
  }

  /** Weakens old counts, where a new layer begins. */
  fade() {
    const { counts, size, totals, ownBuilt } = this;
    for (let k = 0; k < this.contexts; k++) {
      const total = totals[k];
      ownBuilt[k] = total;
      if (total <= 16384) continue;
      ownBuilt[k] = 0;
      for (let at = k * size; at < (k + 1) * size; at++) {
        counts[at] = Math.floor((counts[at] * 16384) / total);
        ownBuilt[k] += counts[at];
      }
    }
  }
}

/** Eight interleaved states of a range coder (rANS) and the words that refill them. */
class Stream {
  /** @param {Uint8Array} bytes @param {string} name */
  constructor(bytes, name) {
    if (bytes.length < 4 * LANES || bytes.length % 2) refuse(`the ${name} are too short`);
    const copy = new Uint8Array(bytes).buffer; // Words lie at even addresses then; a Buffer's slice would be no copy.
    this.name = name;
    this.states = new Uint32Array(copy, 0, LANES);
    this.words = new Uint16Array(copy, 4 * LANES);
    this.at = 0;
    this.lane = 0;
  }

  /** Decodes one token. @param {Tables} tables @param {number} context */
  token({ starts, guide, counts, size }, context) {
    const { states, lane } = this;
    const state = states[lane];
    const slot = state & (ONE - 1);
    const row = context * (size + 1);
    let token = guide[(context << 8) | (slot >> 4)];
    let end = starts[row + token + 1];
    while (end <= slot) end = starts[row + ++token + 1];
    const start = starts[row + token];
    this.step(Math.imul(end - start, state >>> 12) + slot - start);
    counts[context * size + token]++;
    return token;
  }

  /** So many raw bits, at most 12. @param {number} bits */
  raw(bits) {
    const state = this.states[this.lane];
    const slot = state & (ONE - 1);
    const value = slot >>> (12 - bits);
    this.step(((state >>> 12) << (12 - bits)) + slot - (value << (12 - bits)));
    return value;
  }

  /** Gives a lane its next state, refilled where it is low, and goes on to the next lane. @param {number} state */
  step(state) {
    state >>>= 0;
    this.states[this.lane] = state < 65536 ? (state << 16) | this.words[this.at++] : state;
    this.lane = (this.lane + 1) & (LANES - 1);
  }

  /**
   * Decodes `count` tokens into `tokens`, from the eighth on: before them are the last eight of the chunk before.
   *
   * @param {Tables} tables
   * @param {Uint8Array} contexts
   * @param {Uint8Array} tokens
   * @param {number} count
   * @param {Uint8Array} [previous] is added to a context: what it has for the token eight before
   */
  tokens(tables, contexts, tokens, count, previous) {
    if (tables.size === 1) return void tokens.fill(0, LANES, LANES + count);
    for (let j = 0; j < count; j++) {
      tokens[j + LANES] = this.token(tables, previous ? contexts[j] + previous[tokens[j]] : contexts[j]);
    }
  }

  /**
   * Decodes the tokens of a column whose contexts look at the Gaussians that are near.
   *
   * @param {Column} column
   * @param {Neighbors} near
   * @param {number} count
   * @param {Uint8Array} contexts what they begin with
   * @param {Float64Array} reference that which values are below, or else their unit
   */
  predicted({ tables, tokens, values, recent, misses, plan, levels }, { weights }, count, contexts, reference) {
    const { kind, parts, map } = /** @type {Prediction} */ (plan.prediction);
    for (let j = 0; j < count; j++) {
      const mean = meanOf(weights, j, recent);
      const unit = reference[j];
      let measure = (mean / unit) * parts;
      let whole = 0;
      if (kind === BELOW) measure = (unit - mean) * parts + 128;
      else if (kind === RESIDUAL) {
        measure = (meanOf(weights, j, misses) / unit) * parts;
        whole = clamp(Math.floor(mean / unit + 0.5), -FARTHEST, FARTHEST);
      }
      const token = this.token(tables, contexts[j] + map[measure < 0 ? 0 : measure >= 255 ? 255 : measure | 0]);
      tokens[j + LANES] = token;
      values[j] = whole;
      const level = levels[token];
      const known = (recent[j + HISTORY] = kind === LEVEL ? level : kind === BELOW ? unit - level : (level + whole) * unit);
      if (kind === RESIDUAL) misses[j + HISTORY] = Math.abs(known - mean);
    }
  }

  finish() {
    if (this.at !== this.words.length || this.states.some((state) => state !== 65536)) refuse(`the ${this.name} are damaged`);
  }
}

/** What is coded: a number; how far it is below a reference; what it exceeds its prediction by. */
const [LEVEL, BELOW, RESIDUAL] = [0, 1, 2];
const FARTHEST = 1e9;

/** @param {Float64Array} weights @param {number} j @param {Float64Array | Int8Array} recent those of the 64 before the first come first */
function meanOf(weights, j, recent) {
  const w = NEIGHBORS * j;
  return weights[w + 7] * recent[j] + weights[w + 6] * recent[j + 8] + weights[w + 5] * recent[j + 16]
    + weights[w + 4] * recent[j + 24] + weights[w + 3] * recent[j + 32] + weights[w + 2] * recent[j + 40]
    + weights[w + 1] * recent[j + 48] + weights[w] * recent[j + 56];
}

/** The weights of the Gaussians before: inverse squares of distances, which add up to 1. */
class Neighbors {
  constructor() {
    this.places = [0, 1, 2].map(() => new Float64Array(HISTORY + CHUNK));
    this.weights = new Float64Array(NEIGHBORS * CHUNK);
  }

  begin() {
    for (const axis of this.places) axis.fill(Infinity, 0, HISTORY);
  }

  /** Weighs a chunk's, whose places have been filled in. @param {number} count */
  weigh(count) {
    const { weights } = this;
    const [x, y, z] = this.places;
    for (let j = 0; j < count; j++) {
      const i = j + HISTORY;
      const first = NEIGHBORS * j;
      let total = 0;
      for (let k = 0; k < NEIGHBORS; k++) {
        const n = i - LANES * (k + 1);
        const dx = x[i] - x[n];
        const dy = y[i] - y[n];
        const dz = z[i] - z[n];
        const square = dx * dx + dy * dy + dz * dz;
        const weight = 1 / (square > 1 ? square : 1);
        weights[first + k] = weight;
        total += weight;
      }
      if (total > 0) for (let k = 0; k < NEIGHBORS; k++) weights[first + k] /= total;
    }
    for (const axis of this.places) axis.copyWithin(0, count, count + HISTORY);
  }
}

/**
 * How contexts look at the Gaussians that are near.
 *
 * @typedef {object} Prediction
 * @property {number} kind what is coded
 * @property {number} parts of a unit in the map
 * @property {Uint8Array} map of what is measured
 */

/**
 * How a column becomes tokens, and what its contexts look at.
 *
 * @typedef {object} Plan
 * @property {number} d direct bits
 * @property {number} l leading bits
 * @property {number} bits of the longest magnitude
 * @property {boolean} [signed]
 * @property {Uint8Array} [map] of what contexts look at
 * @property {number} [contexts] how many there are, where they are given in place of maps
 * @property {Uint8Array} [previous] map of the column's own token eight before
 * @property {Prediction} [prediction] is looked at in place of it
 */

/** A map: how many of the limits a number below 256 reaches, times the stride. @param {number[]} limits @param {number} [stride] @param {(t: number) => number} [of] */
const buckets = (limits, stride = 1, of = (t) => t) =>
  Uint8Array.from({ length: 256 }, (_, t) => stride * limits.filter((limit) => limit <= of(t)).length);
const fromMiddle = (/** @type {number} */ t) => t - 128;
const most = (/** @type {Uint8Array | undefined} */ map) => (map ? Math.max(...map) : 0);
const NOWHERE = new Uint8Array(CHUNK);

/** The integer of a token whose raw bits are all 0. @param {Plan} plan @param {number} token */
function levelOf({ d, l, signed }, token) {
  const size = signed ? token >> 1 : token;
  const above = size - 2 ** d;
  const level = above < 0 ? size : ((1 << l) | (above & ((1 << l) - 1))) * 2 ** ((above >> l) + d - l);
  return signed && token & 1 ? -level : level;
}

/** One column of integers. */
class Column {
  /** @param {Plan} plan @param {number} size tokens in use @param {number} [capacity] the most in a chunk */
  constructor(plan, size, capacity = CHUNK) {
    this.plan = plan;
    const contexts = plan.contexts ?? 1 + most(plan.previous) + most(plan.prediction?.map) + most(plan.map);
    this.tables = new Tables(contexts, Math.min(size, (2 ** plan.d + ((plan.bits - plan.d) << plan.l)) << Number(plan.signed ?? false)));
    this.tokens = new Uint8Array(LANES + capacity);
    this.values = new Float64Array(capacity);
    this.contexts = new Uint8Array(CHUNK);
    /** What predictions are made of: values without their raw bits. */
    this.recent = new Float64Array(plan.prediction ? HISTORY + CHUNK : 0);
    /** How far they were from their predictions, where that matters. */
    this.misses = new Float64Array(plan.prediction?.kind === RESIDUAL ? HISTORY + CHUNK : 0);
    this.levels = Float64Array.from({ length: plan.prediction ? 256 : 0 }, (_, token) => levelOf(plan, token));
  }

  begin() {
    this.tables.fade();
    this.tokens.fill(0, 0, LANES);
    this.recent.fill(0, 0, HISTORY);
    this.misses.fill(0, 0, HISTORY);
  }

  /** What contexts are, as far as the map tells. @param {number} count @param {ArrayLike<number>} [seen] what it looks at */
  mapped(count, seen) {
    const { contexts, plan: { map } } = this;
    if (!map || !seen) return NOWHERE;
    for (let j = 0; j < count; j++) contexts[j] = map[seen[j]];
    return contexts;
  }

  /** Decodes a chunk's tokens. @param {Stream} stream @param {number} count @param {Uint8Array} [contexts] */
  readTokens(stream, count, contexts = NOWHERE) {
    stream.tokens(this.tables, contexts, this.tokens, count, this.plan.previous);
    return this.tokens.subarray(LANES);
  }

  /** Decodes a chunk's integers, and ends it. @param {Stream} stream @param {number} count @param {Uint8Array} contexts */
  read(stream, count, contexts) {
    this.readTokens(stream, count, contexts);
    this.values.fill(0, 0, count);
    this.finish(stream, count);
  }

  /**
   * The same of a column that is predicted.
   *
   * @param {Stream} stream
   * @param {number} count
   * @param {Neighbors} near
   * @param {Float64Array} reference
   * @param {ArrayLike<number>} [seen] what the map looks at
   */
  predict(stream, count, near, reference, seen) {
    stream.predicted(this, near, count, this.mapped(count, seen), reference);
    this.finish(stream, count);
  }

  /** Adds the integers that tokens stand for to `values`. @param {Stream} stream @param {number} count */
  finish(stream, count) {
    const { values, tokens } = this;
    const { d, l } = this.plan;
    const signed = Number(this.plan.signed ?? false);
    for (let j = 0; j < count; j++) {
      const token = tokens[j + LANES];
      let size = token >> signed;
      if (size >> d) {
        const above = size - (1 << d);
        const below = (above >> l) + d - l;
        size = ((1 << l) | (above & ((1 << l) - 1))) << below;
        for (let shift = 0; shift < below; shift += 12) size |= stream.raw(Math.min(below - shift, 12)) << shift;
        size >>>= 0;
      }
      values[j] += token & signed ? -size : size;
    }
    this.end(count);
  }

  /** Ends a chunk. @param {number} count */
  end(count) {
    this.tokens.copyWithin(0, count, count + LANES);
    this.recent.copyWithin(0, count, count + HISTORY);
    this.misses.copyWithin(0, count, count + HISTORY);
    this.tables.rebuild();
  }
}

/** How far the neighbors are from their mean, in tenths of a step. */
const AGREEMENT = { kind: RESIDUAL, parts: 10, map: buckets([3, 7, 10, 14, 20, 28, 40, 56, 80, 112]) };
/** @type {Record<string, Plan>} */
const DC_PLANS = {
  y: { d: 6, l: 1, bits: 32, signed: true, prediction: AGREEMENT },
  cg: { d: 5, l: 1, bits: 32, signed: true, prediction: AGREEMENT },
  co: { d: 5, l: 1, bits: 32, signed: true, map: buckets([-2, 0, 1, 3], 11, signedOf), prediction: AGREEMENT },
};
/** @param {number} first @param {number} count */
const range = (first, count) => Array.from({ length: count }, (_, i) => first + i);
const FINENESSES = range(1, 16);
const HALF_OCTAVES = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64];
const QUARTER_OCTAVES = [
  1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 18, 21, 25, 30, 35, 42, 50, 59, 70, 83, 99, 118, 140, 166, 198, 235,
];
const ROTATION_PLAN = { d: 5, l: 3, bits: 15, signed: true, map: buckets(FINENESSES) };
const SCALE_POWER = 0.4;
const LN2 = 0.6931471805599453;
const LOGS_PER_OCTAVE = LN2 / SCALE_POWER;
const SMALLEST_SCALE = 0.375;
const COARSER_SCALES = [1, 1, 2];
const SIZE_OF_NOTHING = -114;
/** For rotations, DC and harmonics: weights of the three sizes and of the opacity, in 1/256. */
const FINENESS_RULES = [[256, -38, -77, 97], [64, 77, -26, 110], [128, 128, 0, 128]];

const doubles = new Float64Array(1);
const doubleWords = new Uint32Array(doubles.buffer);

/** The binary logarithm of a positive number, nearly: a parabola between powers of two. @param {number} power */
function octaves(power) {
  doubles[0] = power;
  const exponent = (doubleWords[1] >>> 20) - 1023;
  doubleWords[1] = (doubleWords[1] & 0xfffff) | 0x3ff00000;
  const above = doubles[0] - 1;
  return exponent + above * (4 - above) * (1 / 3);
}

/** The logarithm of a scale symbol, in 1/32 octaves up to a constant. @param {number} symbol */
function sizeOf(symbol) {
  if (symbol <= 0) return SIZE_OF_NOTHING;
  const exponent = 31 - Math.clz32(symbol);
  const above = (exponent > 8 ? symbol >> (exponent - 8) : symbol << (8 - exponent)) - 256;
  return (5 * (256 * exponent + ((above * (1024 - above) * 85) >> 16))) >> 4;
}

/** Steps of each fineness, from the coarsest on. @param {number} step @param {number} range */
const halfOctaves = (step, range) =>
  Float64Array.from({ length: 2 * range + 1 }, (_, i) => {
    const halves = i - range;
    return halves % 2 ? step * (Math.SQRT1_2 * 2 ** ((1 - halves) / 2)) : step * 2 ** (-halves / 2);
  });

/** Every third bit, from the lowest on. @param {number} bits */
function everyThird(bits) {
  bits &= 0x49249249;
  bits = (bits | (bits >>> 2)) & 0xc30c30c3;
  bits = (bits | (bits >>> 4)) & 0x0f00f00f;
  bits = (bits | (bits >>> 8)) & 0xff0000ff;
  return (bits | (bits >>> 16)) & 0x7ff;
}

/** Morton codes of 64 bits, each the sum of a distance and the code eight before. */
class Curve {
  constructor() {
    this.low = new Uint32Array(LANES + CHUNK);
    this.high = new Uint32Array(LANES + CHUNK);
  }

  begin() {
    this.low.fill(0, 0, LANES);
    this.high.fill(0, 0, LANES);
  }

  /** @param {Column} column @param {Stream} stream @param {number} count */
  read(column, stream, count) {
    const tokens = column.readTokens(stream, count);
    const { low, high } = this;
    const { d, l } = column.plan;
    for (let j = 0; j < count; j++) {
      let lower = tokens[j];
      let upper = 0;
      if (lower >> d) {
        const above = lower - (1 << d);
        const below = (above >> l) + d - l;
        lower = 0;
        // The raw bits in twelves, lowest first, and the leading ones above them.
        for (let shift = 0, width = 1; width; shift += width) {
          width = Math.min(below - shift, 12);
          const bits = width ? stream.raw(width) : (1 << l) | (above & ((1 << l) - 1));
          if (shift < 32) lower |= bits << shift;
          if (shift > 20) upper |= shift < 32 ? bits >>> (32 - shift) : bits << (shift - 32);
        }
      }
      const sum = (lower >>> 0) + low[j];
      low[j + LANES] = sum;
      high[j + LANES] = upper + high[j] + (sum > 0xffffffff ? 1 : 0);
    }
    column.end(count);
  }

  end(/** @type {number} */ count) {
    this.low.copyWithin(0, count, count + LANES);
    this.high.copyWithin(0, count, count + LANES);
  }

  /** A coordinate of the chunk's `j`-th. @param {number} j @param {number} axis */
  coordinate(j, axis) {
    const fromLow = axis === 2 ? 10 : 11;
    const above = this.high[j + LANES] >>> (axis === 2 ? 0 : axis + 1);
    return everyThird(this.low[j + LANES] >>> axis) | (everyThird(above) << fromLow);
  }
}

/** @typedef {Record<SectionName, Stream>} Streams */

/** Red, green and blue of a color, in float32 as far as it is whole. @param {number} step @param {number} y @param {number} co @param {number} cg @param {Float32Array} out @param {number} at */
function putColor(step, y, co, cg, out, at) {
  const middle = y - (cg >> 1);
  const blue = middle - (co >> 1);
  out[at] = Math.fround(blue + co) * step;
  out[at + 1] = Math.fround(cg + middle) * step;
  out[at + 2] = Math.fround(blue) * step;
}

/** What both grids have. */
class Grid {
  /** @param {Plan[]} plans @param {number[]} sizes tokens in use of each column */
  constructor(plans, sizes) {
    this.columns = plans.map((plan, i) => new Column(plan, sizes[i]));
    this.near = new Neighbors();
    this.reference = new Float64Array(CHUNK).fill(1);
    this.shFineness = new Uint8Array(CHUNK);
    this.shFinenesses = 1;
  }

  begin() {
    for (const column of this.columns) column.begin();
    this.near.begin();
  }

  /** Colors of degree 0, whose steps are the reference. @param {Stream} stream @param {number} count @param {number} first @param {Float32Array} out @param {number} step */
  readColors(stream, count, first, out, step) {
    const { near, reference } = this;
    const [y, cg, co] = this.columns.slice(-3);
    y.predict(stream, count, near, reference);
    cg.predict(stream, count, near, reference);
    co.predict(stream, count, near, reference, cg.tokens.subarray(LANES));
    for (let j = 0; j < count; j++) {
      putColor(step * reference[j], y.values[j], co.values[j], cg.values[j], out, 3 * (first + j));
    }
  }
}

/** @type {Plan[]} */
const NATIVE_PLANS = [
  { d: 2, l: 2, bits: 63, previous: buckets([36, 48, 60]) },
  { d: 7, l: 4, bits: 8, prediction: { kind: LEVEL, parts: 12, map: buckets(range(1, 11)) } },
  { d: 7, l: 3, bits: 20, prediction: { kind: LEVEL, parts: 4, map: buckets(QUARTER_OCTAVES) } },
  {
    d: 6, l: 2, bits: 20, map: buckets(HALF_OCTAVES, 12),
    prediction: { kind: BELOW, parts: 1, map: buckets([-6, -3, -1, 0, 1, 2, 4, 6, 9, 13, 20], 1, fromMiddle) },
  },
  {
    d: 6, l: 2, bits: 20, map: buckets(HALF_OCTAVES, 13),
    prediction: { kind: BELOW, parts: 2, map: buckets([-6, -2, -1, 0, 1, 2, 4, 8, 12, 18, 26, 40], 1, fromMiddle) },
  },
  ROTATION_PLAN, ROTATION_PLAN, ROTATION_PLAN, DC_PLANS.y, DC_PLANS.cg, DC_PLANS.co,
];

/** The grid `native`. */
class NativeGrid extends Grid {
  static columns = 12;

  /** @param {DataView} view the grid's parameters @param {number[]} sizes tokens in use of each column */
  constructor(view, sizes) {
    super(NATIVE_PLANS, sizes);
    if (view.byteLength !== 140) refuse(BAD_HEADER);
    const numbers = Array.from({ length: 16 }, (_, i) => view.getFloat64(8 * i, true));
    const [radius, scalePivot, scaleStep, rotationStep, dcStep, shStep, shCo, shCg] = numbers.slice(3);
    const meanBits = view.getUint8(128);
    const levels = view.getUint16(132, true);
    this.ranges = [129, 130, 131].map((at) => view.getUint8(at));
    const inRange = numbers.every((number) => Math.abs(number) < 1e38) && radius > 1e-30 && Math.abs(scalePivot) <= 1e6
      && numbers.slice(5, 11).every((step) => step > 1e-30 && step < 1e6) && numbers.slice(11).every((n) => n >= 0 && n <= 64)
      && meanBits <= 16 && levels >= 2 && levels <= 256 && Math.max(...this.ranges) <= 8;
    if (!inRange) refuse(BAD_HEADER);
    this.center = numbers.slice(0, 3);
    this.radius = radius;
    this.unit = 2 ** -meanBits;
    this.pivots = [134, 136, 138].map((at) => view.getInt16(at, true));
    const opacities = Array.from({ length: levels }, (_, level) => ((level + 0.5) / levels) ** 2);
    this.logits = Float32Array.from(opacities, (opacity) => Math.round(Math.log(opacity / (1 - opacity)) * 4096) / 4096);
    this.covered = Int32Array.from(opacities, (opacity) => Math.round(32 * Math.log2(opacity)));
    this.scales = COARSER_SCALES.map((factor) => scaleAxis(SCALE_POWER * scaleStep * factor, scalePivot));
    this.rotationSteps = halfOctaves(rotationStep, this.ranges[0]);
    this.dcSteps = halfOctaves(dcStep, this.ranges[1]);
    this.magnitudes = numbers.slice(12);
    this.shSteps = [...halfOctaves(shStep, this.ranges[2])].map((step) => [step, step * shCo, step * shCg]);

    this.curve = new Curve();
    this.clamped = new Uint8ClampedArray(CHUNK);
    this.fineness = [0, 1, 2].map(() => new Uint8Array(CHUNK));
    this.shFineness = this.fineness[2];
    this.shFinenesses = 2 * this.ranges[2] + 1;
  }

  begin() {
    super.begin();
    this.curve.begin();
  }

  /**
   * Decodes a chunk of all but the harmonics.
   *
   * @param {Streams} streams
   * @param {number} count
   * @param {number} first index of its first Gaussian in the layer
   * @param {Splats} out
   */
  decode(streams, count, first, out) {
    const [distance, opacity, scale, gap, thin, x, y, z] = this.columns;
    const { curve, near, reference, clamped } = this;
    curve.read(distance, streams.means, count);
    this.placeMeans(count, first, out.means);
    curve.end(count);
    near.weigh(count);
    opacity.predict(streams.opacities, count, near, reference.fill(this.logits.length));
    for (let j = 0; j < count; j++) if (opacity.values[j] >= this.logits.length) refuse("the opacities are damaged");
    scale.predict(streams.scales, count, near, reference.fill(1));
    for (let j = 0; j < count; j++) reference[j] = clamped[j] = scale.values[j];
    gap.predict(streams.scales, count, near, reference, clamped);
    for (let j = 0; j < count; j++) reference[j] = clamped[j] = (scale.values[j] - gap.values[j] + 1) >> 1;
    thin.predict(streams.scales, count, near, reference, clamped);
    this.placeShapes(count, first, out);
    const [rotationFineness, dcFineness] = this.fineness;
    for (const axis of [x, y, z]) axis.read(streams.rotations, count, axis.mapped(count, rotationFineness));
    for (let j = 0, at = 4 * first; j < count; j++, at += 4) {
      const step = this.rotationSteps[rotationFineness[j]];
      const qx = x.values[j] * step;
      const qy = y.values[j] * step;
      const qz = z.values[j] * step;
      out.quaternions[at] = Math.sqrt(Math.max(1 - (qx * qx + qy * qy + qz * qz), 0));
      out.quaternions[at + 1] = qx;
      out.quaternions[at + 2] = qy;
      out.quaternions[at + 3] = qz;
    }
    for (let j = 0; j < count; j++) reference[j] = this.dcSteps[dcFineness[j]];
    this.readColors(streams.dc, count, first, out.shDc, 1);
  }

  /** @param {number} count @param {number} first @param {Float32Array} means */
  placeMeans(count, first, means) {
    const { curve, center, radius, unit, near } = this;
    for (let axis = 0; axis < 3; axis++) {
      const places = near.places[axis];
      for (let j = 0, at = 3 * first + axis; j < count; j++, at += 3) {
        const symbol = (places[j + HISTORY] = curve.coordinate(j, axis) - 1048575);
        let size = Math.abs(symbol) * unit;
        if (size > 1) {
          const exponent = size < 201 ? Math.floor(size) - 1 : 200;
          size = (size - exponent) * 2 ** exponent;
        }
        means[at] = clamp((symbol < 0 ? -size : size) * radius + center[axis], -LARGEST_MEAN, LARGEST_MEAN);
      }
    }
  }

  /** Scales, opacities and finenesses. @param {number} count @param {number} first @param {Splats} out */
  placeShapes(count, first, { logScales, opacityLogits }) {
    const { scales, covered, pivots, ranges, fineness, logits, columns } = this;
    const limit = 4 * 1048575;
    const [, opacity, scale, gap, thin] = columns.map(({ values }) => values);
    for (let j = 0, at = 3 * first; j < count; j++, at += 3) {
      const largest = scale[j];
      const middle = largest - gap[j];
      const least = ((middle + 1) >> 1) - thin[j];
      const q = [clamp(largest, -limit, limit), clamp(middle, -limit, limit), clamp(least, -limit, limit)];
      logScales[at] = scales[0](q[0]);
      logScales[at + 1] = scales[1](q[1]);
      logScales[at + 2] = scales[2](q[2]);
      opacityLogits[first + j] = logits[opacity[j]];
      const sizes = [sizeOf(q[0]), sizeOf(q[1]), sizeOf(q[2])];
      for (let rule = 0; rule < 3; rule++) {
        const [a, b, c, o] = FINENESS_RULES[rule];
        const measure = (a * sizes[0] + b * sizes[1] + c * sizes[2] + o * covered[opacity[j]]) >> 8;
        fineness[rule][j] = clamp(((measure - pivots[rule] + 8) >> 4) + ranges[rule], 0, 2 * ranges[rule]);
      }
    }
  }

  /** Red, green and blue of a coefficient. @param {number} fineness @param {number} y @param {number} co @param {number} cg @param {Float32Array} out @param {number} at */
  color(fineness, y, co, cg, out, at) {
    const [yStep, coStep, cgStep] = this.shSteps[fineness];
    const luma = this.inSteps(y) * yStep;
    const orange = this.inSteps(co) * coStep;
    const green = this.inSteps(cg) * cgStep;
    out[at] = luma + green + orange;
    out[at + 1] = luma - 2 * green;
    out[at + 2] = luma + green - orange;
  }

  /** @param {number} symbol */
  inSteps(symbol) {
    const size = Math.abs(symbol);
    const steps = size < 4 ? this.magnitudes[size] : size;
    return symbol < 0 ? -steps : steps;
  }
}

/** What the symbols of an axis' scales stand for; those that are usual are looked up. @param {number} step of the power @param {number} pivot */
function scaleAxis(step, pivot) {
  const compute = (/** @type {number} */ symbol) => octaves((symbol > 0 ? symbol : SMALLEST_SCALE) * step) * LOGS_PER_OCTAVE + pivot;
  const table = Float64Array.from({ length: 1024 }, (_, symbol) => compute(symbol));
  return (/** @type {number} */ symbol) => table[symbol] ?? compute(symbol);
}

const floats = new Float32Array(1);
const floatBits = new Uint32Array(floats.buffer);

/** The float32 or float16 with an ordinal: its bits, or their complement for a negative one. @param {number} ordinal @param {boolean} single */
function ofOrdinal(ordinal, single) {
  const bits = ordinal < 0 ? -1 - ordinal : ordinal;
  let size;
  if (single) {
    floatBits[0] = bits & 0x7fffffff;
    [size] = floats;
  } else {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  }
  return ordinal < 0 ? -size : size;
}

const BYTE = { d: 8, l: 0, bits: 8 };
const SEEING_BYTE = { ...BYTE, map: buckets(range(1, 31).map((limit) => 8 * limit)) };
const ORDINAL = { d: 3, l: 2, bits: 32, signed: true };
const FLOATS = [1, 3, 4].flatMap((width) => range(0, width).map((component) => [component ? SEEING_BYTE : BYTE, SEEING_BYTE, BYTE, BYTE]));

/** The grid of Fast-3DGS: floats byte by byte. */
class Fast3dgsGrid extends Grid {
  static columns = 39;

  /** @param {DataView} view @param {number[]} sizes */
  constructor(view, sizes) {
    super([ORDINAL, ORDINAL, ORDINAL, ...FLOATS.flat(), DC_PLANS.y, DC_PLANS.cg, DC_PLANS.co], sizes);
    if (view.byteLength !== 12) refuse(BAD_HEADER);
    this.dcStep = view.getFloat32(0, true);
    this.shStep = view.getFloat32(4, true);
    this.flags = view.getUint8(8);
    const inRange = [this.dcStep, this.shStep].every((step) => step > 0 && step < 3e36) && this.flags < 16;
    if (!inRange) refuse(BAD_HEADER);
    this.sums = [0, 1, 2].map(() => new Float64Array(LANES + CHUNK));
  }

  begin() {
    super.begin();
    for (const sums of this.sums) sums.fill(0, 0, LANES);
  }

  /** @param {Streams} streams @param {number} count @param {number} first @param {Splats} out */
  decode(streams, count, first, out) {
    for (let axis = 0; axis < 3; axis++) {
      const sums = this.sums[axis];
      const column = this.columns[axis];
      column.read(streams.means, count, NOWHERE);
      for (let j = 0; j < count; j++) {
        sums[j + LANES] = this.near.places[axis][j + HISTORY] = sums[j] + column.values[j];
        out.means[3 * (first + j) + axis] = ofOrdinal(sums[j + LANES], Boolean(this.flags & 1));
      }
      sums.copyWithin(0, count, count + LANES);
    }
    this.near.weigh(count);
    this.readFloats(3, 1, streams.opacities, this.flags & 8, count, first, out.opacityLogits);
    this.readFloats(7, 3, streams.scales, this.flags & 2, count, first, out.logScales);
    this.readFloats(19, 4, streams.rotations, this.flags & 4, count, first, out.quaternions);
    this.readColors(streams.dc, count, first, out.shDc, this.dcStep);
  }

  /** @param {number} at the first column @param {number} width @param {Stream} stream @param {number} single @param {number} count @param {number} first @param {Float32Array} out */
  readFloats(at, width, stream, single, count, first, out) {
    for (let component = 0; component < width; component++, at += 4) {
      const bytes = this.columns.slice(at, at + 4).map((column) => column.tokens.subarray(LANES));
      const above = component ? this.columns[at - 4].tokens.subarray(LANES) : NOWHERE;
      for (let k = 0; k < 4; k++) {
        const column = this.columns[at + k];
        column.readTokens(stream, count, column.mapped(count, k === 1 ? bytes[0] : above));
        column.end(count);
      }
      for (let j = 0; j < count; j++) {
        const upper = bytes[0][j] * 256 + bytes[1][j] - 32768;
        const ordinal = single ? upper * 65536 + bytes[2][j] * 256 + bytes[3][j] : upper;
        out[width * (first + j) + component] = ofOrdinal(ordinal, Boolean(single));
      }
    }
  }

  /** @param {number} _fineness @param {number} y @param {number} co @param {number} cg @param {Float32Array} out @param {number} at */
  color(_fineness, y, co, cg, out, at) {
    putColor(this.shStep, y, co, cg, out, at);
  }
}

const GROUPS = [[0, 3], [3, 8], [8, 12], [12, 15]];
/** The first of the three tokens of triples that do not fit into one: Y is negative, zero or positive. */
const ESCAPE = 26;
const LEANINGS = [-0.6, -0.3, -0.08, 0.08, 0.3, 0.6];
/** The sign of Y of each token of triples. */
const SIGNS = Int8Array.from({ length: ESCAPE + 3 }, (_, token) => (token < ESCAPE ? Math.floor((token + Number(token > 12)) / 9) - 1 : token - ESCAPE - 1));
/** How many ones a mask has. */
const ONES = Uint8Array.from({ length: 1 << 15 }, (_, mask) => {
  let ones = 0;
  for (; mask; mask &= mask - 1) ones++;
  return ones;
});

/** The coefficients above degree 0: classes, masks, triples and what does not fit into these. */
class Harmonics {
  /** @param {NativeGrid | Fast3dgsGrid} grid @param {number} coefficients @param {number} classes */
  constructor(grid, coefficients, classes) {
    this.grid = grid;
    this.coefficients = coefficients;
    this.classes = new Column({ d: 4, l: 0, bits: 4, map: buckets(FINENESSES, 4), previous: buckets([1, 2, 3]) }, classes);
    this.groups = GROUPS.filter(([begin]) => begin < coefficients).map(([begin, end]) => ({
      begin,
      tables: new Tables(20, 1 << (end - begin)),
      /** What a context has for the ones among the coefficients before. */
      density: Uint8Array.from({ length: 16 }, (_, ones) => Math.min(32 - Math.clz32(Math.floor((8 * ones) / Math.max(begin, 1))), 4)),
    }));
    this.triples = new Tables(4 * (1 + LEANINGS.length), ESCAPE + 3);
    const value = { d: 4, l: 1, bits: 13, signed: true, contexts: 35 };
    this.values = [{ d: 5, l: 1, bits: 13, contexts: 22 }, value, value].map((plan) => new Column(plan, 256, 15 * CHUNK));
    /** The signs of Y, for each coefficient. */
    this.signs = Array.from({ length: coefficients }, () => new Int8Array(HISTORY + CHUNK));
    /** What triples stand for, for each fineness. */
    this.palette = new Float32Array(grid.shFinenesses * ESCAPE * 3);
    for (let fineness = 0, at = 0; fineness < grid.shFinenesses; fineness++) {
      for (let digits = 0; digits < 27; digits++) {
        if (digits === 13) continue;
        grid.color(fineness, Math.floor(digits / 9) - 1, (Math.floor(digits / 3) % 3) - 1, (digits % 3) - 1, this.palette, at);
        at += 3;
      }
    }
    this.rows = new Uint16Array(CHUNK);
    this.kinds = new Uint8Array(CHUNK);
    this.masks = new Uint16Array(CHUNK);
    this.symbols = new Uint8Array(LANES + 15 * CHUNK);
    this.contexts = new Uint8Array(15 * CHUNK);
    this.members = new Uint16Array(15 * CHUNK);
    this.crowds = new Uint8Array(CHUNK);
    /** Where the members of each coefficient begin. */
    this.bounds = new Uint32Array(coefficients + 1);
    this.escapes = new Uint32Array(15 * CHUNK);
    this.spreads = new Uint8Array(15 * CHUNK);
    this.escapeSigns = new Int8Array(15 * CHUNK);
  }

  begin() {
    this.classes.begin();
    for (const signs of this.signs) signs.fill(0, 0, HISTORY);
    for (const tables of this.allTables()) tables.fade();
  }

  allTables() {
    return [...this.groups.map(({ tables }) => tables), this.triples, ...this.values.map(({ tables }) => tables)];
  }

  /** Decodes a chunk. @param {Stream} stream @param {number} count @param {number} first @param {Float32Array} out all 0 */
  decode(stream, count, first, out) {
    const { rows, kinds, masks, symbols, contexts, members, bounds, crowds, escapes, escapeSigns, coefficients, palette } = this;
    const { shFineness, near: { weights } } = this.grid;
    const classes = this.classes.readTokens(stream, count, this.classes.mapped(count, shFineness));
    let shown = 0;
    for (let j = 0; j < count; j++) {
      if (!classes[j]) continue;
      rows[shown] = j;
      kinds[shown] = Math.min(classes[j] - 1, 3);
      masks[shown++] = 0;
    }
    for (const { begin, tables, density } of this.groups) {
      for (let i = 0; i < shown; i++) contexts[i] = 5 * kinds[i] + density[ONES[masks[i]]];
      stream.tokens(tables, contexts, symbols, shown);
      for (let i = 0; i < shown; i++) masks[i] |= symbols[i + LANES] << begin;
    }
    // The members of each coefficient, one coefficient after the other.
    bounds.fill(0);
    for (let i = 0; i < shown; i++) for (let left = masks[i]; left; left &= left - 1) bounds[32 - Math.clz32(left & -left)]++;
    for (let k = 0; k < coefficients; k++) bounds[k + 1] += bounds[k];
    for (let i = 0; i < shown; i++) for (let left = masks[i]; left; left &= left - 1) members[bounds[31 - Math.clz32(left & -left)]++] = i;

    let escaped = 0;
    crowds.fill(0, 0, shown);
    for (let k = 0, t = 0; k < coefficients; k++) {
      const signs = this.signs[k];
      for (; t < bounds[k]; t++) {
        const i = members[t];
        const j = rows[i];
        const mean = meanOf(weights, j, signs);
        let leaning = 0;
        for (let part = 0; part < LEANINGS.length; part++) if (mean >= LEANINGS[part]) leaning++;
        const token = stream.token(this.triples, kinds[i] + 4 * leaning);
        signs[j + HISTORY] = SIGNS[token];
        const at = 3 * ((first + j) * coefficients + k);
        if (token >= ESCAPE) {
          escapeSigns[escaped] = SIGNS[token];
          members[escaped] = i; // No later one is overwritten: there are fewer escapes than members so far.
          escapes[escaped++] = at;
          crowds[i]++;
        } else {
          const color = 3 * (shFineness[j] * ESCAPE + token);
          out[at] = palette[color];
          out[at + 1] = palette[color + 1];
          out[at + 2] = palette[color + 2];
        }
      }
      signs.copyWithin(0, count, count + HISTORY).fill(0, HISTORY);
    }
    this.decodeEscapes(stream, classes, escaped, out);
    this.classes.end(count);
    for (const tables of this.allTables()) tables.rebuild();
  }

  /** The colors that are no triples. @param {Stream} stream @param {Uint8Array} classes @param {number} count @param {Float32Array} out */
  decodeEscapes(stream, classes, count, out) {
    const { grid, rows, members, crowds, escapes, spreads, escapeSigns: signs, contexts } = this;
    const [y, co, cg] = this.values;
    for (let e = 0; e < count; e++) {
      const i = members[e];
      spreads[e] = clamp(classes[rows[i]] - 2, 0, 6);
      contexts[e] = signs[e] ? 3 * spreads[e] + (crowds[i] > 4 ? 2 : crowds[i] > 1 ? 1 : 0) : 21;
    }
    y.read(stream, count, contexts);
    for (let e = 0; e < count; e++) {
      y.values[e] *= signs[e];
      contexts[e] = 5 * spreads[e] + clamp(y.values[e] >> spreads[e], -2, 2) + 2;
    }
    co.read(stream, count, contexts);
    cg.read(stream, count, contexts);
    for (let e = 0; e < count; e++) {
      grid.color(grid.shFineness[rows[members[e]]], y.values[e], co.values[e], cg.values[e], out, escapes[e]);
    }
  }
}

/** A file, decoded layer by layer. */
export class GszDecoder {
  /**
   * @param {Uint8Array} bytes the beginning of a file
   * @returns {GszDecoder | undefined} nothing where the header is not whole yet
   */
  static open(bytes) {
    if (!isGsz(bytes)) refuse("this is no .gsz file");
    if (bytes.length < PREFIX_BYTES) return undefined;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const version = view.getUint16(8, true);
    if (version !== 2) refuse(`version ${version} of the format is not known`);
    const [layers, columns] = [bytes[14], bytes[15]];
    const body = view.getUint16(16, true) + view.getUint16(18, true) + columns;
    const size = PREFIX_BYTES + body + layers * LAYER_BYTES;
    return bytes.length < size ? undefined : new GszDecoder(bytes.slice(0, size));
  }

  /** @param {Uint8Array} header */
  constructor(header) {
    const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
    if (crc32(header.subarray(24), crc32(header.subarray(0, 20))) !== view.getUint32(20, true)) refuse("the header is damaged");
    const features = view.getUint16(10, true);
    const [grid, degree, layers, columns] = header.subarray(12, 16);
    const Grid = [NativeGrid, Fast3dgsGrid][grid];
    if (features > 1 || !Grid) refuse("the file needs a newer decoder");
    this.offset = [24, 32, 40].map((at) => view.getFloat64(at, true));
    if (degree > 3 || !layers || layers > MOST_LAYERS || columns !== Grid.columns || !this.offset.every(Number.isFinite)) {
      refuse(BAD_HEADER);
    }
    this.antialiased = Boolean(features & 1);
    this.shDegree = degree;
    let at = PREFIX_BYTES;
    const take = (/** @type {number} */ bytes) => header.subarray(at, (at += bytes));
    const parameters = take(view.getUint16(16, true));
    this.metadata = readMetadata(take(view.getUint16(18, true)));
    const sizes = [...take(columns)].map((size) => size + 1);
    const coefficients = (degree + 1) ** 2 - 1;
    this.grid = new Grid(new DataView(parameters.buffer, parameters.byteOffset, parameters.length), sizes);
    this.harmonics = coefficients ? new Harmonics(this.grid, coefficients, sizes[columns - 1]) : null;
    /** How many layers have been decoded. */
    this.layer = 0;
    /** @type {Layer[]} */
    this.layers = [];
    for (let end = header.length; this.layers.length < layers; at += LAYER_BYTES) {
      const start = end;
      const sections = /** @type {Layer["sections"]} */ ({});
      SECTIONS.forEach((name, i) => {
        sections[name] = { start: end, end: (end += view.getUint32(at + 12 + 8 * i, true)), crc: view.getUint32(at + 16 + 8 * i, true) };
      });
      const count = view.getUint32(at, true);
      const correction = { logScales: view.getFloat32(at + 4, true), opacityLogits: view.getFloat32(at + 8, true) };
      if (count > end - start) refuse(BAD_HEADER);
      if (!Object.values(correction).every((number) => Math.abs(number) <= 100)) refuse(BAD_HEADER);
      this.layers.push({ count, correction, end, sections });
    }
  }

  /** Whether the next layer is among the bytes. @param {Uint8Array} bytes the file as far as it is there */
  ready(bytes) {
    return this.layer < this.layers.length && bytes.length >= this.layers[this.layer].end;
  }

  /** The next layer. @param {Uint8Array} bytes the file, with all of this layer @returns {Splats} */
  next(bytes) {
    const { grid, harmonics, shDegree } = this;
    const { count, sections } = this.layers[this.layer++];
    const streams = /** @type {Streams} */ ({});
    for (const name of SECTIONS) {
      const { start, end, crc } = sections[name];
      const section = bytes.subarray(start, end);
      if (crc32(section) !== crc) refuse(`the ${name} are damaged`);
      if (name !== "padding") streams[name] = new Stream(section, name);
    }
    grid.begin();
    harmonics?.begin();
    const layer = blankSplats(count, shDegree);
    for (let first = 0; first < count; ) {
      const chunk = Math.min(CHUNK, Math.max(128, 8 * (first >> 4)), count - first);
      grid.decode(streams, chunk, first, layer);
      harmonics?.decode(streams.sh, chunk, first, layer.shRest);
      first += chunk;
    }
    for (const stream of Object.values(streams)) stream.finish();
    return layer;
  }
}

/** @param {Uint8Array} bytes @returns {Record<string, any>} */
function readMetadata(bytes) {
  if (!bytes.length) return {};
  try {
    const metadata = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (metadata?.constructor === Object) return metadata;
  } catch {
    // It is refused below.
  }
  return refuse(BAD_HEADER);
}

/**
 * A model whose values are 0.
 *
 * @param {number} count
 * @param {number} shDegree
 * @returns {Splats}
 */
export function blankSplats(count, shDegree) {
  const floats = (/** @type {number} */ width) => new Float32Array(width * count);
  return {
    count, shDegree, means: floats(3), logScales: floats(3), quaternions: floats(4),
    opacityLogits: floats(1), shDc: floats(3), shRest: floats(3 * ((shDegree + 1) ** 2 - 1)),
  };
}

/** Whether a file begins as a .gsz does. @param {Uint8Array} bytes */
export const isGsz = (bytes) => MAGIC.every((byte, i) => bytes[i] === byte);

/**
 * All Gaussians of a file, or of as many whole layers as there are, with the correction for the others.
 *
 * @param {Uint8Array} bytes
 * @returns {Splats}
 * @throws where the file is damaged or has no whole layer
 */
export function decode(bytes) {
  const decoder = GszDecoder.open(bytes);
  /** @type {Splats[]} */
  const layers = [];
  while (decoder?.ready(bytes)) layers.push(decoder.next(bytes));
  if (!decoder || !layers.length) refuse("the file ends before its first layer does");
  const whole = layers.length > 1 ? blankSplats(layers.reduce((sum, { count }) => sum + count, 0), decoder.shDegree) : layers[0];
  for (const name of layers.length > 1 ? ARRAYS : []) {
    let at = 0;
    for (const layer of layers) {
      whole[name].set(layer[name], at);
      at += layer[name].length;
    }
  }
  if (decoder.layer < decoder.layers.length) {
    const { logScales, opacityLogits } = decoder.layers[decoder.layer - 1].correction;
    for (let i = 0; i < whole.logScales.length; i++) whole.logScales[i] += logScales;
    for (let i = 0; i < whole.count; i++) whole.opacityLogits[i] += opacityLogits;
  }
  return whole;
}

/**
 * The layers of a file, each as soon as its bytes have arrived, with the correction that all so far are shown with as
 * long as no other arrives.
 *
 * @param {ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>} source
 * @returns {AsyncGenerator<Splats & {correction: Correction}>}
 * @throws where the file is damaged or ends early
 */
export async function* decodeLayers(source) {
  const arriving = new Arriving();
  /** @type {GszDecoder | undefined} */
  let decoder;
  for await (const chunk of chunksOf(source)) {
    arriving.push(chunk);
    if (arriving.length >= MAGIC.length) decoder ??= GszDecoder.open(arriving.bytes);
    while (decoder?.ready(arriving.bytes)) {
      const { correction } = decoder.layers[decoder.layer];
      yield { ...decoder.next(arriving.bytes), correction };
    }
  }
  if (!decoder || decoder.layer < decoder.layers.length) refuse("the file ends early");
}

/** Streams are iterable in few browsers yet. @param {ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>} source @returns {AsyncGenerator<Uint8Array>} */
export async function* chunksOf(source) {
  if (!("getReader" in source)) return yield* source;
  const reader = source.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** Bytes that arrive in pieces. */
export class Arriving {
  constructor() {
    this.buffer = new Uint8Array(1 << 16);
    this.length = 0;
  }

  /** What has arrived. */
  get bytes() {
    return this.buffer.subarray(0, this.length);
  }

  /** @param {Uint8Array} chunk */
  push(chunk) {
    if (this.length + chunk.length > this.buffer.length) {
      const grown = new Uint8Array(Math.max(2 * this.buffer.length, this.length + chunk.length));
      grown.set(this.bytes);
      this.buffer = grown;
    }
    this.buffer.set(chunk, this.length);
    this.length += chunk.length;
  }
}
