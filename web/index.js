/** What the package offers, and its custom element. */
import { defineElement } from "./element.js";

export { decode, decodeLayers } from "./gsz.js";
export { readPly, writePly } from "./ply.js";
export { SplatView } from "./splatview.js";
export { Controls } from "./controls.js";
export { GszViewer } from "./element.js";

if (globalThis.customElements) defineElement();
