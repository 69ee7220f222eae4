/** Starts a worker that serves a model. The bundle, which is one script, has a function of this name of its own. */
export const startWorker = () => new Worker(new URL("./worker_main.js", import.meta.url), { type: "module" });
