import { serveModel } from "./worker.js";

serveModel(/** @type {any} */ (globalThis));
