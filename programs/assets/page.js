"use strict";

// Tables: a click on a header sorts by it, another one the other way round.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
      const rows = [...body.rows].sort((a, b) => (down ? -1 : 1) * compare(key(a), key(b)));
      body.append(...rows);
    });
  });
}

// Pictures of a view: any two of them, one over the other, and a line between that is dragged or moved by keys.
for (const figures of document.querySelectorAll(".pictures")) {
  const pictures = [...figures.querySelectorAll("img")];
  const names = pictures.map((picture) => picture.dataset.name);
  if (pictures.length < 2) continue;
  const live = document.createElement("div");
  live.className = "live";
  live.innerHTML = `
    <div class="controls"><label>left <select></select></label><label>right <select></select></label></div>
    <div class="slider"><img alt=""><img class="over" alt=""><span class="line"></span>
      <span class="tag left"></span><span class="tag right"></span></div>
    <input type="range" min="0" max="100" step="0.5" value="50" aria-label="where the two pictures meet, in percent">`;
  const [left, right] = live.querySelectorAll("select");
  const [under, over] = live.querySelectorAll(".slider img");
  const [leftTag, rightTag] = live.querySelectorAll(".tag");
  const first = figures.querySelector("img");
  live.style.setProperty("--aspect", first.getAttribute("width") / first.getAttribute("height"));
  const slider = live.querySelector(".slider"), range = live.querySelector("input");
  for (const select of [left, right]) for (const name of names) select.add(new Option(name));
  left.value = names.includes("original") ? "original" : names[0];
  right.value = names.includes("compressed") ? "compressed" : names[1];
  const show = () => {
    const [a, b] = [left, right].map((select) => pictures[names.indexOf(select.value)]);
    [under.src, under.alt, leftTag.textContent] = [a.src, a.alt, left.value];
    [over.src, over.alt, rightTag.textContent] = [b.src, b.alt, right.value];
  };
  const meet = () => slider.style.setProperty("--at", `${range.value}%`);
  const drag = (event) => {
    const box = slider.getBoundingClientRect();
    range.value = (100 * (event.clientX - box.left)) / box.width;
    meet();
  };
  left.addEventListener("change", show);
  right.addEventListener("change", show);
  range.addEventListener("input", meet);
  slider.addEventListener("pointerdown", (event) => {
    slider.setPointerCapture(event.pointerId);
    drag(event);
  });
  slider.addEventListener("pointermove", (event) => event.buttons && drag(event));
  show();
  figures.hidden = true;
  figures.after(live);
}

// The models in three dimensions: started by the first button that asks for a view.
const bytesOf = (id) => {
  const text = document.getElementById(id)?.textContent;
  return text ? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) : null;
};
const stage = document.getElementById("three");
if (stage && globalThis.gsz) {
  let viewer = null;
  const begin = async () => {
    viewer = document.createElement("gsz-viewer");
    for (const name of ["names", "look", "background"]) viewer.setAttribute(name, stage.dataset[name]);
    stage.replaceChildren(viewer);
    viewer.cameras = JSON.parse(document.getElementById("cameras").textContent);
    await Promise.all(["model-0", "model-1"].map(bytesOf).map((bytes, which) => bytes && viewer.load(which, bytes)));
  };
  for (const button of document.querySelectorAll("button[data-camera]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      if (!viewer) await begin();
      viewer.goTo(Number(button.dataset.camera));
      stage.scrollIntoView({ block: "center" });
    });
  }
  if ("starts" in stage.dataset) begin();
}
