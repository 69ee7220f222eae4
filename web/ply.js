import { ARRAYS, blankSplats } from "./gsz.js";

/** @typedef {import("./gsz.js").Splats} Splats */

/** What a DataView calls the types of a PLY. @type {Record<string, "Int8" | "Uint8" | "Int16" | "Uint16" | "Int32" | "Uint32" | "Float32" | "Float64">} */
const PLY_TYPES = {
  char: "Int8", uchar: "Uint8", uint8: "Uint8", short: "Int16", ushort: "Uint16", int: "Int32", uint: "Uint32",
  float: "Float32", float32: "Float32", double: "Float64", float64: "Float64",
};
const LONGEST_HEADER = 1 << 16;

/** Whether a file begins as a PLY does. @param {Uint8Array} bytes */
export const isPly = (bytes) => bytes[0] === 0x70 && bytes[1] === 0x6c && bytes[2] === 0x79;

/**
 * Reads INRIA's checkpoint: a binary little-endian PLY whose first element is `vertex`.
 *
 * Gaussians with a value that is not finite are dropped.
 *
 * @param {Uint8Array} bytes the whole file
 * @returns {Splats}
 */
export function readPly(bytes) {
  const { count, stride, start, fields } = readPlyHeader(bytes);
  const rest = [...fields.keys()].filter((name) => name.startsWith("f_rest_")).length;
  const shDegree = [0, 9, 24, 45].indexOf(rest);
  if (shDegree < 0) throw new Error(`ply: ${rest} properties f_rest_*; there must be 0, 9, 24 or 45`);
  const coefficients = rest / 3;

  const names = ["x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "opacity",
    "f_dc_0", "f_dc_1", "f_dc_2"];
  // The file has all coefficients of red, then green, then blue.
  for (let k = 0; k < coefficients; k++) for (let c = 0; c < 3; c++) names.push(`f_rest_${c * coefficients + k}`);
  const columns = names.map((name) => {
    const field = fields.get(name);
    if (!field) throw new Error(`ply: the property ${name} is missing; this is no Gaussian splatting model`);
    return field;
  });

  const view = new DataView(bytes.buffer, bytes.byteOffset + start, count * stride);
  const values = new Float32Array(names.length);
  const whole = blankSplats(count, shDegree);
  let kept = 0;
  for (let i = 0; i < count; i++) {
    let finite = true;
    for (let c = 0; c < columns.length; c++) {
      values[c] = view[`get${columns[c].type}`](i * stride + columns[c].offset, true);
      finite = finite && Number.isFinite(values[c]);
    }
    if (!finite) continue;
    whole.means.set(values.subarray(0, 3), 3 * kept);
    whole.logScales.set(values.subarray(3, 6), 3 * kept);
    whole.quaternions.set(values.subarray(6, 10), 4 * kept);
    whole.opacityLogits[kept] = values[10];
    whole.shDc.set(values.subarray(11, 14), 3 * kept);
    whole.shRest.set(values.subarray(14), rest * kept);
    kept++;
  }
  for (const name of ARRAYS) whole[name] = whole[name].subarray(0, (whole[name].length / count) * kept);
  return { ...whole, count: kept };
}

/** @param {Uint8Array} bytes */
function readPlyHeader(bytes) {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, LONGEST_HEADER));
  const end = /\nend_header\r?\n/.exec(text);
  if (!isPly(bytes) || !end) throw new Error("ply: the header has no end");
  const start = end.index + end[0].length;
  /** @type {Map<string, {offset: number, type: (typeof PLY_TYPES)[string]}>} */
  const fields = new Map();
  let count = -1;
  let stride = 0;
  let element = "";
  for (const line of text.slice(0, end.index).split("\n")) {
    const [word, first, second] = line.trim().split(/\s+/);
    if (word === "format" && first !== "binary_little_endian") {
      throw new Error(`ply: the format ${first} is not read here, only binary_little_endian`);
    }
    if (word === "element") {
      if (!element && first !== "vertex") throw new Error(`ply: the first element is ${first}, not vertex`);
      element = element ? "another" : first;
      if (element === "vertex") count = Number(second);
    }
    if (word === "property" && element === "vertex") {
      const type = PLY_TYPES[first];
      if (!type) throw new Error(`ply: the type ${first} of a property is not read here`);
      fields.set(second, { offset: stride, type });
      stride += parseInt(type.replace(/\D+/, "")) / 8;
    }
  }
  if (!Number.isInteger(count) || count < 0) throw new Error("ply: the header names no vertices");
  if (start + count * stride > bytes.length) throw new Error("ply: the file ends before its last vertex");
  return { count, stride, start, fields };
}

/**
 * A model as the bytes of INRIA's PLY, for viewers that read one from memory.
 *
 * @param {Splats} splats
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function writePly({ count, shDegree, means, logScales, quaternions, opacityLogits, shDc, shRest }) {
  const coefficients = (shDegree + 1) ** 2 - 1;
  const rest = Array.from({ length: 3 * coefficients }, (_, k) => `f_rest_${k}`);
  const names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", ...rest, "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3"];
  const properties = names.map((name) => `property float ${name}\n`).join("");
  const header = new TextEncoder().encode(
    `ply\nformat binary_little_endian 1.0\nelement vertex ${count}\n${properties}end_header\n`);
  const rows = new Float32Array(names.length * count);
  for (let i = 0, at = 0; i < count; i++, at += names.length) {
    rows.set(means.subarray(3 * i, 3 * i + 3), at);
    rows.set(shDc.subarray(3 * i, 3 * i + 3), at + 3);
    for (let k = 0; k < coefficients; k++) {
      for (let c = 0; c < 3; c++) rows[at + 6 + c * coefficients + k] = shRest[3 * (coefficients * i + k) + c];
    }
    const after = at + 6 + rest.length;
    rows[after] = opacityLogits[i];
    rows.set(logScales.subarray(3 * i, 3 * i + 3), after + 1);
    rows.set(quaternions.subarray(4 * i, 4 * i + 4), after + 4);
  }
  const file = new Uint8Array(header.length + rows.byteLength);
  file.set(header);
  file.set(new Uint8Array(rows.buffer), header.length);
  return file;
}
