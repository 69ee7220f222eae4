import { Controls } from "./controls.js";
import { LOOKS, SplatView } from "./splatview.js";

/** @typedef {import("./camera.js").CameraEntry} CameraEntry */
/** @typedef {import("./splatview.js").Look} Look */

/** Workers and Node have no elements; there the class is only a name. */
const Base = globalThis.HTMLElement ?? /** @type {any} */ (Object);
const STYLE = `
:host { display: block; position: relative; min-height: 120px; background: #000; color: #fff; font: 13px/1.4 system-ui, sans-serif; overflow: hidden }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: grab; outline-offset: -2px }
canvas:active { cursor: grabbing }
p { position: absolute; top: 0; left: 0; margin: 8px; padding: 2px 8px; max-width: calc(100% - 32px); border-radius: 4px; background: #000a; pointer-events: none }
p:empty, [hidden] { display: none !important }
form { position: absolute; left: 0; right: 0; bottom: 0; display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; padding: 6px 8px; background: #000a }
:host([bare]) form { display: none }
label, span { display: flex; gap: 4px; align-items: center }
select, button, input { font: inherit; color: inherit; background: #333; border: 1px solid #777; border-radius: 4px; padding: 1px 6px; max-width: 14em }
input[type=range] { width: 90px; padding: 0 } input[type=color] { width: 28px; height: 22px; padding: 0 }
button[aria-pressed=true] { background: #06c }
`;
const MARKUP = `
<canvas tabindex="0" role="application" aria-roledescription="3D viewer"></canvas>
<p role="status"></p>
<form>
  <span class="cameras" hidden><button type="button" name="previous" aria-label="Previous photograph">&#8249;</button>
    <select name="camera" aria-label="Photograph"></select>
    <button type="button" name="next" aria-label="Next photograph">&#8250;</button></span>
  <label class="pair" hidden><select name="look" aria-label="What is shown"></select></label>
  <label class="split" hidden>Split <input type="range" name="split" min="0" max="1" step="0.005"></label>
  <label class="layers" hidden>Layers <input type="range" name="layers" min="1" step="1"></label>
  <label>Background <input type="color" name="background"></label>
  <button type="button" name="fly" aria-pressed="false" title="Dragging looks around instead of turning the model (F)">Fly</button>
</form>`;
const HELP = "Drag to turn, Shift-drag or two fingers to move, wheel or pinch to come nearer, double click to set what is "
  + "turned about, W A S D Q E to fly, Page Up and Page Down for the photographs, Space to exchange two models.";

/**
 * `<gsz-viewer src="garden.gsz" cameras="cameras.json"></gsz-viewer>`
 *
 * Attributes: `src` and `src2` (addresses of .gsz or .ply files, `data:` ones too), `cameras` (address of a
 * `cameras.json`), `camera` (index of the one that is shown first), `look` (`first`, `second`, `split`, `difference`),
 * `names` (those of the two models, with a bar between them), `background` (`#rrggbb`), `bare` (no controls shown).
 * Events: `load` when a model is whole, `error` (with a `message`), `camera` when a photograph was chosen.
 */
export class GszViewer extends Base {
  static observedAttributes = ["src", "src2", "cameras", "camera", "look", "names", "background"];

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = `<style>${STYLE}</style>${MARKUP}`;
    this.canvas = /** @type {HTMLCanvasElement} */ (root.querySelector("canvas"));
    this.canvas.setAttribute("aria-label", HELP);
    this.canvas.title = HELP;
    this.status = /** @type {HTMLElement} */ (root.querySelector("p"));
    this.form = /** @type {HTMLFormElement} */ (root.querySelector("form"));
    /** @type {CameraEntry[]} */
    this.entries = [];
    this.cameraIndex = -1;
    this.problem = "";
    this.announced = ["", ""];
    /** @type {SplatView | null} */
    this.view = null;
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.readForm());
    this.field("previous").addEventListener("click", () => this.step(-1));
    this.field("next").addEventListener("click", () => this.step(1));
    this.field("fly").addEventListener("click", () => this.setFly(!this.controls?.fly));
    this.canvas.addEventListener("keydown", (event) => this.pressed(event));
  }

  connectedCallback() {
    if (this.view) return;
    this.view = new SplatView(this.canvas, () => this.report());
    this.controls = new Controls(this.view);
    for (const name of GszViewer.observedAttributes) {
      const value = this.getAttribute(name);
      if (value !== null) this.attributeChangedCallback(name, null, value);
    }
    this.report();
  }

  disconnectedCallback() {
    // Moving an element disconnects and connects it within one task.
    setTimeout(() => {
      if (this.isConnected) return;
      this.view?.release();
      this.view = null;
    });
  }

  /** @param {string} name @param {string | null} _before @param {string | null} value */
  attributeChangedCallback(name, _before, value) {
    const { view } = this;
    if (!view || value === null) return;
    if (name === "src" || name === "src2") this.load(name === "src" ? 0 : 1, value);
    else if (name === "cameras") this.fetchCameras(value);
    else if (name === "camera") this.goTo(Number(value));
    else if (name === "look" && LOOKS.includes(/** @type {Look} */ (value))) view.look = /** @type {Look} */ (value);
    else if (name === "background") {
      this.field("background").value = value;
      view.background = [1, 3, 5].map((k) => parseInt(value.slice(k, k + 2), 16) / 255 || 0);
    }
    view.redraw();
    this.report();
  }

  /** Shows a model: the first, or the second that it is compared with. @param {0 | 1} which @param {string | Uint8Array} source */
  load(which, source) {
    this.announced[which] = "";
    this.view?.load(which, source);
    this.report();
  }

  /** The photographs' cameras, as in `cameras.json`. */
  get cameras() {
    return this.entries;
  }

  set cameras(entries) {
    this.entries = entries;
    const options = entries.map((entry, i) => new Option(entry.img_name ?? String(i), String(i)));
    this.field("camera").replaceChildren(...options);
    // Photographs are taken upright, on average.
    const down = entries.reduce((sum, { rotation }) => sum.map((value, i) => value + rotation[i][1]), [0, 0, 0]);
    const length = Math.hypot(...down);
    if (this.view && length > 0.1 * entries.length) this.view.up = down.map((value) => -value / length);
    if (entries.length) this.goTo(Number(this.getAttribute("camera") ?? 0));
    this.report();
  }

  /** Looks as a photograph does. @param {number} index into {@link cameras} */
  goTo(index) {
    const entry = this.entries[index];
    if (!entry || !this.view) return;
    this.cameraIndex = index;
    this.field("camera").value = String(index);
    this.view.goTo(entry);
    this.dispatchEvent(new CustomEvent("camera", { detail: index }));
  }

  /** Resolves when everything is loaded, sorted and drawn at full resolution. @returns {Promise<void>} */
  async settled() {
    await this.view?.settled();
  }

  /** @param {string} address */
  async fetchCameras(address) {
    try {
      const response = await fetch(new URL(address, document.baseURI));
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      this.cameras = await response.json();
    } catch (error) {
      this.problem = `The cameras could not be read: ${/** @type {Error} */ (error).message}.`;
      this.report();
    }
  }

  /** @param {number} by */
  step(by) {
    const count = this.entries.length;
    if (count) this.goTo((this.cameraIndex + by + count) % count);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.code === "PageUp" || event.code === "PageDown") this.step(event.code === "PageUp" ? -1 : 1);
    else if (event.code === "Space" && this.view?.models[1]) {
      this.view.look = this.view.look === "first" ? "second" : "first";
      this.view.redraw();
    } else if (event.code !== "KeyF") return;
    event.preventDefault();
    this.report();
  }

  /** @param {boolean} fly */
  setFly(fly) {
    if (this.controls) this.controls.fly = fly;
    this.report();
  }

  readForm() {
    const { view } = this;
    if (!view) return;
    if (this.field("camera").value !== String(this.cameraIndex)) this.goTo(Number(this.field("camera").value));
    if (this.field("look").value) view.look = /** @type {Look} */ (this.field("look").value);
    view.split = Number(this.field("split").value);
    view.layers = Number(this.field("layers").value);
    this.setAttribute("background", this.field("background").value);
    view.redraw();
    this.report();
  }

  /** Says and offers what there is to say and to choose. */
  report() {
    const { view } = this;
    if (!view) return;
    const [first, second] = view.models;
    const layers = Math.max(...view.models.map((model) => model?.counts.length ?? 0));
    this.group("cameras", this.entries.length > 0);
    this.group("pair", Boolean(second));
    this.group("split", Boolean(second) && view.look === "split");
    this.group("layers", layers > 1);
    const names = (this.getAttribute("names") ?? "first|second").split("|");
    const looks = [names[0], names[1] ?? "second", "split", `difference × ${view.gain}`];
    this.field("look").replaceChildren(...LOOKS.map((look, i) => new Option(looks[i], look, false, look === view.look)));
    this.field("layers").max = String(layers);
    this.field("layers").value = String(Math.min(view.layers, layers));
    this.field("split").value = String(view.split);
    this.field("fly").setAttribute("aria-pressed", String(Boolean(this.controls?.fly)));

    const error = view.error || first?.error || second?.error || this.problem;
    const arriving = view.models.find((model) => model && !model.loaded && !model.error);
    const share = arriving?.total ? ` ${Math.floor((100 * arriving.received) / arriving.total)} %` : "";
    const text = error || (arriving ? `Loading${share}` : "");
    if (this.status.textContent !== text) this.status.textContent = text;
    view.models.forEach((model, which) => {
      const state = model?.error ? "error" : model?.loaded ? "load" : "";
      if (!model || state === this.announced[which]) return;
      this.announced[which] = state;
      if (state) this.dispatchEvent(Object.assign(new CustomEvent(state, { detail: which }), { message: model.error }));
    });
  }

  /** @param {string} name @returns {HTMLInputElement} an input, select or button */
  field(name) {
    return /** @type {HTMLInputElement} */ (this.form.elements.namedItem(name));
  }

  /** @param {string} name @param {boolean} shown */
  group(name, shown) {
    /** @type {HTMLElement} */ (this.form.querySelector(`.${name}`)).hidden = !shown;
  }
}

/** Makes `<gsz-viewer>` known to the page. */
export function defineElement() {
  if (!customElements.get("gsz-viewer")) customElements.define("gsz-viewer", GszViewer);
}
