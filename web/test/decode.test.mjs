// The decoder: bit for bit what Python decodes, from whole files, cut ones and streams; damage is refused.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { crc32 } from "node:zlib";
import { GszDecoder, decode, decodeLayers } from "../gsz.js";
import { python } from "./bundle.mjs";

const ARRAYS = ["means", "logScales", "quaternions", "opacityLogits", "shDc", "shRest"];

describe("the decoder", () => {
  const folder = mkdtempSync(join(tmpdir(), "gsz-models-"));
  before(() => python("web/test/models.py", folder));
  after(() => rmSync(folder, { recursive: true }));

  const read = (name) => new Uint8Array(readFileSync(join(folder, name)));
  function assertEqual(splats, name, what = name) {
    const expected = read(name);
    const words = new Uint32Array(expected.buffer, 0, expected.length / 4);
    let at = 0;
    for (const field of ARRAYS) {
      const bits = new Uint32Array(splats[field].buffer, splats[field].byteOffset, splats[field].length);
      // Zeros may differ in their sign.
      const wrong = bits.findIndex((value, i) => value !== words[at + i] && (value | words[at + i]) << 1 !== 0);
      assert.equal(wrong, -1, `${what}: ${field}[${wrong}]`);
      at += bits.length;
    }
    assert.equal(at, words.length, what);
  }

  test("gives the bits that Python gives, for every degree, quality, grid, number of layers and Gaussians", () => {
    const files = readdirSync(folder).filter((name) => name.endsWith(".gsz"));
    assert.ok(files.length > 45 && files.some((name) => name.startsWith("gsz_v2")));
    for (const name of files) assertEqual(decode(read(name)), name.replace(/gsz$/, "f32"));
  });

  test("gives the whole layers of a file that is cut", () => {
    const bytes = read("sh3_3_layers.gsz");
    const { layers } = GszDecoder.open(bytes);
    assertEqual(decode(bytes.subarray(0, layers[1].end - 1)), "sh3_3_layers.1.f32");
    assertEqual(decode(bytes.subarray(0, layers[1].end)), "sh3_3_layers.2.f32");
    assert.throws(() => decode(bytes.subarray(0, layers[0].end - 1)), /ends before its first layer/);
  });

  test("gives layers while bytes arrive, from a stream as from pieces", async () => {
    const bytes = read("sh3_3_layers.gsz");
    async function* pieces() {
      for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000);
    }
    for (const source of [pieces(), new Blob([bytes]).stream()]) {
      const layers = [];
      for await (const layer of decodeLayers(source)) layers.push(layer);
      assert.equal(layers.length, 3);
      const whole = { ...layers[0] };
      for (const field of ARRAYS) whole[field] = Float32Array.from(layers.flatMap((layer) => [...layer[field]]));
      assertEqual(whole, "sh3_3_layers.f32");
    }
    await assert.rejects(async () => {
      for await (const layer of decodeLayers(new Blob([bytes.subarray(0, 9000)]).stream())) assert.ok(layer.count);
    }, /ends early/);
  });

  test("refuses 500 damaged files, or decodes them to finite numbers; none takes long or much memory", () => {
    let state = 1;
    const random = (below) => Math.floor(((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32) * below);
    const sources = ["sh3_3_layers.gsz", "sh1_medium.gsz", "sh2_fast3dgs.gsz", "count_9.gsz"].map(read);
    let decoded = 0;
    for (let turn = 0; turn < 500; turn++) {
      const source = sources[turn % sources.length];
      let bytes = source.slice();
      // Half of them have checksums that fit the damage, as a stranger's file may have.
      const forged = turn % 8 < 4;
      for (let k = 0; k <= random(4); k++) bytes[forged ? 24 + random(bytes.length - 24) : random(bytes.length)] = random(256);
      if (random(4) === 0) bytes = bytes.slice(0, random(bytes.length));
      if (forged) forge(bytes);
      const started = performance.now();
      try {
        const splats = decode(bytes);
        decoded++;
        assert.ok(splats.count <= bytes.length);
        for (const field of ARRAYS) assert.ok(splats[field].every(Number.isFinite), `turn ${turn}: ${field}`);
      } catch (error) {
        assert.match(error.message, /^gsz: /, `turn ${turn}: ${error.stack}`);
      }
      assert.ok(performance.now() - started < 2000, `turn ${turn} takes long`);
    }
    assert.ok(decoded > 5, `${decoded} were decoded`);
  });

  test("decodes a million Gaussians a second of one core", () => {
    for (const [name, bytes] of [["the demo's model, SH 3", read("demo.gsz")], ["SH 0", read("count_500000.gsz")]]) {
      let count = 0;
      const times = [1, 2, 3, 4, 5, 6, 7].map(() => {
        const earlier = process.cpuUsage();
        ({ count } = decode(bytes));
        return process.cpuUsage(earlier).user / 1e6;
      });
      const rate = count / times.sort()[3] / 1e6;
      console.log(`${name}: ${rate.toFixed(2)} million Gaussians a second of the processor`);
      assert.ok(rate > 0.2, "a fifth of the goal, for slow machines and noisy models");
    }
  });
});

/** Gives a file the checksums that its bytes ask for, as far as its header makes sense. */
function forge(bytes) {
  if (bytes.length < 48) return;
  const view = new DataView(bytes.buffer);
  const header = 48 + view.getUint16(16, true) + view.getUint16(18, true) + bytes[15] + 68 * bytes[14];
  if (header > bytes.length) return;
  let start = header;
  for (let at = header - 68 * bytes[14]; at < header; at += 68) {
    for (let section = 0; section < 7; section++) {
      const end = start + view.getUint32(at + 12 + 8 * section, true);
      view.setUint32(at + 16 + 8 * section, crc32(bytes.subarray(start, end)), true);
      start = end;
    }
  }
  view.setUint32(20, crc32(Buffer.concat([bytes.subarray(0, 20), bytes.subarray(24, header)])), true);
}
