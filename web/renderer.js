import { NEAR_PLANE } from "./sort.js";
import { ROW, SH_TEXELS } from "./pack.js";
import { gaussianVertexShader, GAUSSIAN_FRAGMENT_SHADER, SCREEN_FRAGMENT_SHADER, SCREEN_VERTEX_SHADER } from "./shaders.js";

/**
 * A camera's place and lens, for a picture of `width` by `height` pixels.
 *
 * @typedef {object} Pose
 * @property {number[]} position in world units
 * @property {number[]} right the camera's x axis, a unit vector
 * @property {number[]} down its y axis
 * @property {number[]} forward its z axis
 * @property {number} fx focal lengths in pixels
 * @property {number} fy
 * @property {number} cx the principal point in pixels
 * @property {number} cy
 * @property {number} width
 * @property {number} height
 */

/**
 * What a model keeps on the GPU.
 *
 * @typedef {object} Uploaded
 * @property {number} degree
 * @property {WebGLTexture} shapes
 * @property {WebGLTexture} harmonics
 * @property {WebGLBuffer} order slots, farthest first
 * @property {WebGLVertexArrayObject} vertices
 * @property {number} shown how many slots of `order` are drawn
 * @property {number} swelling factor of all standard deviations
 * @property {number} logitOffset is added to all opacity logits
 */

/** Locations of the attributes, as the shader has them. */
const [CORNER, SLOT] = [0, 1];

/** The drawing itself: models on the GPU, a picture of each, and the screen that they are put on. */
export class Renderer {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, depth: false, powerPreference: "high-performance" });
    if (!gl) throw new Error("This browser offers no WebGL 2, which the viewer needs.");
    this.gl = gl;
    /** Half precision keeps hundreds of faint layers apart; without it (rare) eight bits have to do. */
    this.precise = Boolean(gl.getExtension("EXT_color_buffer_half_float") ?? gl.getExtension("EXT_color_buffer_float"));
    this.screen = link(gl, SCREEN_VERTEX_SHADER, SCREEN_FRAGMENT_SHADER);
    this.noVertices = gl.createVertexArray();
    /** @type {Map<number, WebGLProgram>} */
    this.programs = new Map();
    this.corners = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.corners);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    this.pictures = [this.blankPicture(), this.blankPicture()];
  }

  /** @returns {{texture: WebGLTexture, frame: WebGLFramebuffer, width: number, height: number}} */
  blankPicture() {
    const { gl } = this;
    return { texture: gl.createTexture(), frame: gl.createFramebuffer(), width: 0, height: 0 };
  }

  /**
   * Makes room for a model.
   *
   * @param {number} rows rows of Gaussians
   * @param {number} degree of its harmonics
   * @returns {Uploaded}
   */
  allocate(rows, degree) {
    const { gl } = this;
    const limit = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (rows > limit) {
      throw new Error(`The model has more than the ${limit * ROW} Gaussians that this device can hold in one texture.`);
    }
    this.program(degree); // Where it does not compile, the model is said to have failed.
    const order = gl.createBuffer();
    const vertices = gl.createVertexArray();
    gl.bindVertexArray(vertices);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.corners);
    gl.enableVertexAttribArray(CORNER);
    gl.vertexAttribPointer(CORNER, 2, gl.FLOAT, false, 0, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, order);
    gl.enableVertexAttribArray(SLOT);
    gl.vertexAttribIPointer(SLOT, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(SLOT, 1);
    gl.bindVertexArray(null);
    return {
      degree, order, vertices, shown: 0, swelling: 1, logitOffset: 0,
      shapes: this.table(3 * ROW, rows),
      harmonics: this.table(Math.max(1, SH_TEXELS[degree] * ROW), degree ? rows : 1),
    };
  }

  /** A texture of four integers a texel. @param {number} width @param {number} height */
  table(width, height) {
    const { gl } = this;
    const texture = sampled(gl, gl.createTexture(), gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32UI, width, Math.max(1, height));
    return texture;
  }

  /**
   * @param {Uploaded} model
   * @param {number} row the first row that is filled
   * @param {{rows: number, shapes: Uint32Array, harmonics: Uint32Array}} packed
   */
  upload(model, row, { rows, shapes, harmonics }) {
    const { gl } = this;
    if (!rows) return;
    gl.bindTexture(gl.TEXTURE_2D, model.shapes);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, row, 3 * ROW, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, shapes);
    if (!model.degree) return;
    const width = SH_TEXELS[model.degree] * ROW;
    gl.bindTexture(gl.TEXTURE_2D, model.harmonics);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, row, width, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, harmonics);
  }

  /** @param {Uploaded} model @param {Uint32Array} order slots, farthest first @param {number} count how many of them */
  reorder(model, order, count) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, model.order);
    gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW, 0, count);
    model.shown = count;
  }

  /** @param {Uploaded} model */
  release({ shapes, harmonics, order, vertices }) {
    const { gl } = this;
    gl.deleteTexture(shapes);
    gl.deleteTexture(harmonics);
    gl.deleteBuffer(order);
    gl.deleteVertexArray(vertices);
  }

  /** Draws a model (or nothing) into picture 0 or 1. @param {0 | 1} which @param {Uploaded | null} model @param {Pose} pose */
  draw(which, model, pose) {
    const { gl } = this;
    const { width, height } = pose;
    this.begin(this.pictures[which], width, height);
    if (!model?.shown) return;
    const program = this.program(model.degree);
    gl.useProgram(program);
    gl.bindVertexArray(model.vertices);
    bindTexture(gl, 0, model.shapes);
    bindTexture(gl, 1, model.harmonics);
    gl.uniform1i(gl.getUniformLocation(program, "harmonics"), 1);
    setUniforms(gl, program, {
      axes: [...pose.right, ...pose.down, ...pose.forward],
      eye: pose.position, focal: [pose.fx, pose.fy], center: [pose.cx, pose.cy], size: [width, height],
      nearPlane: [NEAR_PLANE], swelling: [model.swelling], logitOffset: [model.logitOffset],
    });
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, model.shown);
    gl.disable(gl.BLEND);
  }

  /**
   * Puts the pictures on the canvas.
   *
   * @param {{mode: number, split: number, gain: number, background: number[]}} look mode: 0 first, 1 second, 2 split, 3 difference
   */
  show({ mode, split, gain, background }) {
    const { gl, screen } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.useProgram(screen);
    gl.bindVertexArray(this.noVertices);
    bindTexture(gl, 0, this.pictures[0].texture);
    bindTexture(gl, 1, this.pictures[mode ? 1 : 0].texture);
    gl.uniform1i(gl.getUniformLocation(screen, "second"), 1);
    setUniforms(gl, screen, { mode: [mode], split: [split], gain: [gain], background });
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** @param {ReturnType<Renderer["blankPicture"]>} picture @param {number} width @param {number} height */
  begin(picture, width, height) {
    const { gl } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, picture.frame);
    if (picture.width !== width || picture.height !== height) {
      Object.assign(picture, { width, height });
      sampled(gl, picture.texture, gl.LINEAR);
      const [internal, type] = this.precise ? [gl.RGBA16F, gl.HALF_FLOAT] : [gl.RGBA8, gl.UNSIGNED_BYTE];
      gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, gl.RGBA, type, null);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, picture.texture, 0);
    }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
  }

  /** The program for a degree, compiled when it is first needed. @param {number} degree */
  program(degree) {
    let program = this.programs.get(degree);
    if (!program) {
      program = link(this.gl, gaussianVertexShader(degree, SH_TEXELS[degree], ROW), GAUSSIAN_FRAGMENT_SHADER);
      this.programs.set(degree, program);
    }
    return program;
  }
}

/** @param {WebGL2RenderingContext} gl @param {WebGLProgram} program @param {Record<string, number[]>} values */
function setUniforms(gl, program, values) {
  for (const [name, value] of Object.entries(values)) {
    const location = gl.getUniformLocation(program, name);
    if (value.length === 9) gl.uniformMatrix3fv(location, false, value);
    else gl[/** @type {"uniform1fv"} */ (`uniform${value.length}fv`)](location, value);
  }
}

/** Binds a texture that is to be read so. @param {WebGL2RenderingContext} gl @param {WebGLTexture} texture @param {number} filter */
function sampled(gl, texture, filter) {
  gl.bindTexture(gl.TEXTURE_2D, texture);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  for (const end of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, end, filter);
  return texture;
}

/** Samplers read unit 0 unless they are told otherwise. @param {WebGL2RenderingContext} gl @param {number} unit @param {WebGLTexture} texture */
function bindTexture(gl, unit, texture) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, texture);
}

/** @param {WebGL2RenderingContext} gl @param {string} vertex @param {string} fragment */
function link(gl, vertex, fragment) {
  const program = gl.createProgram();
  const log = [];
  for (const [kind, source] of /** @type {[number, string][]} */ ([[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]])) {
    const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    log.push(gl.getShaderInfoLog(shader));
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`This device does not compile the viewer's shaders: ${log.join(" ")} ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}
