/** @typedef {import("./gsz.js").Splats} Splats */

/** Gaussians in a row of the textures: 3072 texels at degree 3, which every device takes. */
export const ROW = 512;
/** Texels of 16 bytes that a Gaussian's coefficients above degree 0 take, by degree. */
export const SH_TEXELS = [0, 2, 3, 6];
const SHAPE_WORDS = 12;

const halfSource = new Float32Array(1);
const halfSourceBits = new Int32Array(halfSource.buffer);

/** The bits of the nearest half-precision float; what is too large becomes the largest. @param {number} value */
export function halfBits(value) {
  halfSource[0] = value;
  const bits = halfSourceBits[0];
  const sign = (bits >> 16) & 0x8000;
  const exponent = ((bits >> 23) & 255) - 112;
  const mantissa = bits & 0x7fffff;
  if (exponent >= 31) return sign | 0x7bff;
  if (exponent > 0) return sign | Math.min(((exponent << 10) | (mantissa >> 13)) + ((mantissa >> 12) & 1), 0x7bff);
  if (exponent < -10) return sign;
  const shift = 14 - exponent;
  const whole = mantissa | 0x800000;
  return sign | ((whole >> shift) + ((whole >> (shift - 1)) & 1));
}

/**
 * Lays Gaussians out as the shader reads them, in rows of {@link ROW}.
 *
 * A Gaussian has three texels of `shapes`: position and opacity; rotation as a modified Rodrigues vector (the vector
 * part over one plus the scalar one, which keeps its precision everywhere) and red and green of degree 0 in half
 * precision; standard deviations and blue. `harmonics` has its coefficients above degree 0 in half precision.
 *
 * @param {Splats} splats
 * @returns {{rows: number, shapes: Uint32Array, harmonics: Uint32Array}}
 */
export function packSplats(splats) {
  const { count, shDegree, means, logScales, quaternions, opacityLogits, shDc, shRest } = splats;
  const rows = Math.ceil(count / ROW);
  const shapes = new Uint32Array(rows * ROW * SHAPE_WORDS);
  const floats = new Float32Array(shapes.buffer);
  for (let i = 0, at = 0; i < count; i++, at += SHAPE_WORDS) {
    const w = quaternions[4 * i];
    const x = quaternions[4 * i + 1];
    const y = quaternions[4 * i + 2];
    const z = quaternions[4 * i + 3];
    const length = Math.hypot(w, x, y, z) || 1;
    const share = (w < 0 ? -1 : 1) / (length + Math.abs(w));
    floats[at] = means[3 * i];
    floats[at + 1] = means[3 * i + 1];
    floats[at + 2] = means[3 * i + 2];
    floats[at + 3] = 1 / (1 + Math.exp(-opacityLogits[i]));
    floats[at + 4] = x * share;
    floats[at + 5] = y * share;
    floats[at + 6] = z * share;
    shapes[at + 7] = halfBits(shDc[3 * i]) | (halfBits(shDc[3 * i + 1]) << 16);
    floats[at + 8] = Math.exp(logScales[3 * i]);
    floats[at + 9] = Math.exp(logScales[3 * i + 1]);
    floats[at + 10] = Math.exp(logScales[3 * i + 2]);
    shapes[at + 11] = halfBits(shDc[3 * i + 2]);
  }
  const values = 3 * ((shDegree + 1) ** 2 - 1);
  const words = 4 * SH_TEXELS[shDegree];
  const harmonics = new Uint32Array(rows * ROW * words);
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < values; k++) {
      const value = shRest[values * i + k];
      if (value !== 0) harmonics[words * i + (k >> 1)] |= halfBits(value) << ((k & 1) << 4);
    }
  }
  return { rows, shapes, harmonics };
}
