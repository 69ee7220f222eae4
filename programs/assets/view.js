"use strict";

// What there is to look at comes from state.json, again and again while a run adds to it; or it is in the page.
const viewer = document.querySelector("gsz-viewer");
const [first, second] = document.querySelectorAll(".choice select");
const said = document.querySelector(".choice .dim");
const shown = [null, null];
let followed = true;

const describe = (model) => `${model.name} (${(model.bytes / 1e6).toFixed(3)} MB)`;

function choose(select, models, wanted) {
  const before = select.value;
  select.replaceChildren(...models.map((model) => new Option(describe(model), model.id)));
  select.value = models.some((model) => model.id === before) ? before : wanted;
}

function show(models) {
  const chosen = [first, second].map((select) => models.find((model) => model.id === select.value));
  viewer.setAttribute("names", chosen.map((model) => model?.name.replaceAll("|", " ") ?? "").join("|"));
  chosen.forEach((model, which) => {
    if (!model || shown[which] === model.id) return;
    shown[which] = model.id;
    viewer.load(which, new URL(`models/${model.id}`, location.href).href);
  });
}

async function refresh() {
  try {
    const state = await (await fetch("state.json")).json();
    const models = state.models;
    if (!models.length) {
      said.textContent = "There is no model yet; it will be shown when there is.";
    } else {
      choose(first, models, models[0].id);
      if (followed) second.replaceChildren();
      choose(second, models, models[models.length - 1].id);
      second.parentElement.hidden = models.length < 2;
      if (models.length < 2) second.value = "";
      said.textContent = state.running ? "The run goes on: its newest round is shown." : "";
      if (!viewer.hasAttribute("look")) viewer.setAttribute("look", models.length > 1 ? "split" : "first");
      show(models);
    }
    if (state.running) setTimeout(refresh, 3000);
  } catch {
    said.textContent = "The program that served this page has ended.";
  }
}

first.addEventListener("change", refresh);
second.addEventListener("change", () => {
  followed = false;
  refresh();
});
fetch("cameras.json").then((answer) => answer.json()).then((cameras) => {
  if (cameras.length) viewer.cameras = cameras;
  refresh();
});
