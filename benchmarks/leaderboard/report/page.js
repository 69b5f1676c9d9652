"use strict";

const board = JSON.parse(document.getElementById("data").textContent);
const byId = (name) => document.getElementById(name);
const all = (selector) => [...document.querySelectorAll(selector)];
const PAGE_SIZE = 50;
const state = { metric: board.monitor, off: new Set(), page: 0, runColumn: 0, runDescending: false };

// --- What is shown ---

const named = (name) => name.toLowerCase().includes(byId("search").value.trim().toLowerCase());
const shownModels = () => board.models.map((_, model) => model).filter((model) => !state.off.has(model) && named(board.models[model].name));

function update() {
  const shown = shownModels();
  const names = new Set(shown.map((model) => board.models[model].name));
  const published = byId("published")?.checked ?? false;
  for (const table of all(".metric, .areas")) table.hidden = table.dataset.metric !== state.metric;
  const of = (row) => row.dataset.model ?? row.dataset.name;
  for (const row of all(".measured tr, .areas-measured tr")) row.hidden = !names.has(of(row));
  for (const row of all(".published tr, .areas-published tr")) row.hidden = !(published && named(of(row)));
  byId("count").textContent = `${shown.length} of ${board.models.length} shown`;
  draw(shown);
  drawConfusion();
  drawRuns();
}

function draw(shown = shownModels()) {
  byId("zero").parentElement.hidden = shown.length > MOST_BARS;
  drawConditions(byId("bars"), board, state.metric, shown, byId("zero").checked);
  drawCurves(byId("curve"), all(".published-curves"), board, state.metric, shown, byId("published")?.checked ?? false);
  drawFurther(all(".further-curve"), board, state.metric, shown);
}

// --- Sorting ---

// The order of two cells: numbers by size, text by letters, what is empty always last.
function compare(one, other, descending) {
  const [noOne, noOther] = [one === null || one === "", other === null || other === ""];
  if (noOne || noOther) return noOne - noOther;
  const order = typeof one === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
  return descending ? -order : order;
}

function headButton(head, first, sort) {
  const button = element("button", { type: "button" }, ...head.childNodes);
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    sort(now ? now === "ascending" : first() === "descending");
  });
}

function markSorted(heads, column, descending) {
  heads.forEach((head, number) => {
    if (number === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

// The tables of all metrics are sorted alike, from best to worst or back, so that switching the metric keeps the column.
function sortResults(column, reversed) {
  for (const table of all("table.results")) {
    const heads = [...table.tHead.rows[0].cells];
    if (!heads[column]) continue; // only one metric has the gap
    const numeric = heads[column].dataset.kind === "number";
    const descending = (heads[column].dataset.first === "descending") !== reversed;
    const value = (row) => {
      const text = row.cells[column].dataset.value;
      return numeric && text !== "" ? Number(text) : text;
    };
    for (const body of table.tBodies) {
      body.append(...[...body.rows].sort((one, other) => compare(value(one), value(other), descending)));
    }
    markSorted(heads, column, descending);
  }
}

// --- Confusion matrices: two models side by side ---

function choices(select, names, chosen) {
  names.forEach((name, number) => select.append(element("option", { value: String(number) }, name)));
  select.value = String(chosen);
  return select;
}

function drawConfusion() {
  const condition = [...board.conditions, "pooled"][byId("condition").value];
  for (const figure of all("#confusion figure")) {
    const model = board.models[figure.querySelector("select").value];
    const cell = model.cells[state.metric][condition];
    const score = cell ? `${state.metric} ${spread(board, state.metric, cell)}` : "";
    figure.querySelector(".matrix").replaceChildren(score, confusionTable(model.confusion[condition], board.classes, board.kind));
  }
}

function makeConfusion() {
  const names = board.models.map((model) => model.name);
  choices(byId("condition"), [...board.conditions, "pooled"].map((row) => board.labels[row]), board.conditions.length);
  byId("condition").addEventListener("change", drawConfusion);
  for (let number = 0; number < Math.min(2, names.length); number++) {
    const select = choices(element("select", { onchange: drawConfusion }), names, number);
    select.setAttribute("aria-label", `model of matrix ${number + 1}`);
    byId("confusion").append(element("figure", {}, select, element("div", { className: "matrix" })));
  }
}

// --- Single runs ---

const runColumns = () => [
  { label: "model", value: (run) => board.models[run.model].name, kind: "text" },
  { label: "fold", value: (run) => run.fold },
  { label: "seed", value: (run) => run.seed },
  ...board.rows.map((row, number) => ({
    label: board.labels[row],
    value: (run) => run.metrics[state.metric][number],
    show: (value) => shown(board, state.metric, value),
    first: board.lower.includes(state.metric) ? "ascending" : "descending",
  })),
  { label: "wall time", value: (run) => run.wall_time_s, show: (seconds) => `${seconds.toFixed(0)} s` },
  { label: "run folder", value: (run) => run.run, kind: "path" },
  { label: "commit", value: (run) => run.commit, kind: "hash" },
  { label: "config", value: (run) => run.config, kind: "hash" },
  { label: "code", value: (run) => run.code, kind: "hash" },
  { label: "data", value: (run) => run.data, kind: "hash" },
  { label: "date", value: (run) => run.date, kind: "path" },
  { label: "stage 1", value: (run) => run.stage1, kind: "path" },
  { label: "checkpoint", value: (run) => run.checkpoint, kind: "path" },
];

function chosenRuns(columns) {
  const is = (id, value) => byId(id).value === "" || byId(id).value === String(value);
  const words = byId("run-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const { value } = columns[state.runColumn];
  return board.runs
    .filter((run) => is("run-model", run.model) && is("run-fold", run.fold) && is("run-seed", run.seed))
    .filter((run) => words.every((word) => run.search.includes(word)))
    .sort((one, other) => compare(value(one), value(other), state.runDescending));
}

function drawRuns() {
  const columns = runColumns();
  const runs = chosenRuns(columns);
  state.page = Math.max(0, Math.min(state.page, Math.ceil(runs.length / PAGE_SIZE) - 1));
  const start = state.page * PAGE_SIZE;
  const rows = runs.slice(start, start + PAGE_SIZE).map((run) => {
    const cells = columns.map(({ value, show, kind }, number) => {
      const text = value(run) ?? "–";
      const shown = show && text !== "–" ? show(text) : String(text);
      return element(number ? "td" : "th", { className: kind ?? "", title: kind === "hash" ? String(text) : "" }, shown);
    });
    return element("tr", {}, ...cells);
  });
  byId("runs").tBodies[0].replaceChildren(...rows);
  byId("range").textContent = runs.length ? `${start + 1}–${start + rows.length} of ${runs.length}` : "no run matches";
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = start + PAGE_SIZE >= runs.length;
}

function makeRuns() {
  for (const run of board.runs) {
    run.search = Object.values(run).filter((value) => typeof value === "string").join("\n").toLowerCase();
  }
  const heads = runColumns().map(({ label, kind }, column) => {
    const head = element("th", { scope: "col" }, label);
    head.dataset.kind = kind ? "text" : "number";
    headButton(head, () => runColumns()[column].first, (descending) => {
      Object.assign(state, { runColumn: column, runDescending: descending, page: 0 });
      markSorted(heads, column, descending);
      drawRuns();
    });
    return head;
  });
  markSorted(heads, 0, false);
  byId("runs").append(element("thead", {}, element("tr", {}, ...heads)), element("tbody"));
  const filters = { "run-model": board.models.map((model) => model.name), "run-fold": board.folds, "run-seed": board.seeds };
  for (const [id, values] of Object.entries(filters)) {
    byId(id).append(element("option", { value: "" }, "all"));
    values.forEach((value, number) => {
      byId(id).append(element("option", { value: String(id === "run-model" ? number : value) }, String(value)));
    });
  }
  const restart = () => {
    state.page = 0;
    drawRuns();
  };
  for (const id of [...Object.keys(filters), "run-search"]) byId(id).addEventListener("input", restart);
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    byId(id).addEventListener("click", () => {
      state.page += step;
      drawRuns();
    });
  }
}

// The number of runs of a model leads to them.
function linkRuns(cell) {
  const name = cell.parentElement.dataset.model;
  const button = element("button", { type: "button", title: `the runs of ${name}` }, ...cell.childNodes);
  cell.replaceChildren(button);
  button.addEventListener("click", () => {
    byId("run-model").value = String(board.models.findIndex((model) => model.name === name));
    byId("run-model").dispatchEvent(new Event("input"));
    byId("runs-title").scrollIntoView();
  });
}

// --- Controls ---

function makeControls() {
  for (const metric of board.metrics) {
    const button = element("input", { type: "radio", name: "metric", value: metric, checked: metric === state.metric });
    button.addEventListener("change", () => {
      state.metric = metric;
      update();
    });
    byId("metrics").append(element("label", {}, button, metric));
  }
  const boxes = board.models.map((model, number) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      state.off[box.checked ? "delete" : "add"](number);
      update();
    });
    byId("models").append(element("label", {}, box, model.name));
    return box;
  });
  for (const [id, checked] of [["all", true], ["none", false]]) {
    byId(id).addEventListener("click", () => {
      boxes.forEach((box) => (box.checked = checked));
      state.off = new Set(checked ? [] : boxes.keys());
      update();
    });
  }
  for (const id of ["search", "published", "zero"]) byId(id)?.addEventListener("input", update);
}

function start() {
  makeControls();
  makeConfusion();
  makeRuns();
  for (const table of all("table.results")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const first = () => head.dataset.first;
      headButton(head, first, (descending) => sortResults(column, descending !== (first() === "descending")));
    });
    markSorted(heads, 0, false);
  }
  all(".measured td.runs").forEach(linkRuns);
  const silent = board.models.filter((model) => !Object.keys(model.rates.modalities?.[board.monitor] ?? {}).length).map((model) => model.name);
  if (silent.length) byId("unswept").textContent = ` Without a curve, because they do not answer every condition: ${silent.join(", ")}.`;
  byId("choice").open = window.innerWidth > 600;
  for (const id of ["controls", "choice", "scripted"]) byId(id).hidden = false;
  update();
  let waiting = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => draw());
  });
}

start();
