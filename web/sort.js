/** The distance in front of the camera, in world units, from which Gaussians are drawn: that of 3DGS. */
export const NEAR_PLANE = 0.2;
const BUCKETS = 1 << 16;

/**
 * Sorts Gaussians back to front, as blending wants them.
 *
 * A counting sort of 65,535 buckets. The bits of positive floats order as the floats do and are nearly a logarithm, so
 * buckets of equally many bit patterns are finer near the camera, where an exchange would show.
 */
export class DepthSorter {
  /** @param {number} capacity the most Gaussians that there will be */
  constructor(capacity) {
    this.depths = new Float32Array(capacity);
    this.bits = new Uint32Array(this.depths.buffer);
    this.keys = new Uint16Array(capacity);
    this.ends = new Uint32Array(BUCKETS);
  }

  /**
   * @param {Float32Array} means three coordinates a slot
   * @param {{start: number, count: number}[]} ranges the slots that hold Gaussians
   * @param {number[]} eye the camera's position
   * @param {number[]} forward the unit vector that it looks along
   * @param {Uint32Array} order is filled with the slots in front of the camera, farthest first
   * @returns {number} how many these are
   */
  sort(means, ranges, [eyeX, eyeY, eyeZ], [x, y, z], order) {
    const { depths, bits, keys, ends } = this;
    const offset = eyeX * x + eyeY * y + eyeZ * z;
    let nearest = 0xffffffff;
    let farthest = 0;
    for (const { start, count } of ranges) {
      for (let i = start; i < start + count; i++) {
        depths[i] = means[3 * i] * x + means[3 * i + 1] * y + means[3 * i + 2] * z - offset;
        if (!(depths[i] > NEAR_PLANE)) continue;
        if (bits[i] < nearest) nearest = bits[i];
        if (bits[i] > farthest) farthest = bits[i];
      }
    }
    // Bucket 0 is the farthest; the last one takes what is not in front.
    const share = (BUCKETS - 2) / Math.max(farthest - nearest, 1);
    ends.fill(0);
    for (const { start, count } of ranges) {
      for (let i = start; i < start + count; i++) {
        const key = depths[i] > NEAR_PLANE ? ((farthest - bits[i]) * share) | 0 : BUCKETS - 1;
        keys[i] = key;
        ends[key]++;
      }
    }
    let total = 0;
    for (let key = 0; key < BUCKETS; key++) {
      const inBucket = ends[key];
      ends[key] = total;
      total += inBucket;
    }
    const inFront = ends[BUCKETS - 1];
    for (const { start, count } of ranges) {
      for (let i = start; i < start + count; i++) order[ends[keys[i]]++] = i;
    }
    return inFront;
  }
}
