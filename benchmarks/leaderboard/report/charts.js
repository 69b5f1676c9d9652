"use strict";

// Everything is built of nodes, never of markup: a name is text, whatever is in it.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// toFixed rounds a tie such as 0.125 up, Python to the even digit: both must show the same number.
function percent(value) {
  if (value === null || value === undefined) return "–";
  const points = 100 * value;
  return ((8 * points) % 4 === 1 ? points - 0.001 : points).toFixed(2);
}

// A value of a score as tables show it: percentages times 100, others with three decimals.
function shown(board, metric, value) {
  if (board.percent[metric] || value === null || value === undefined) return percent(value);
  return value.toFixed(3);
}

const spread = (board, metric, [mean, std]) => shown(board, metric, mean) + (std === null ? "" : ` ± ${shown(board, metric, std)}`);

// By the model's name, see looks.py: eight colours, then the same eight in a second and a third style.
const look = (model) => `c${board.models[model].look % 8} s${style(model)}`;
const style = (model) => Math.floor(board.models[model].look / 8) % 3;

function marker(model, x, y) {
  const shape = style(model);
  if (shape === 0) return svg("circle", { class: `point ${look(model)}`, cx: x, cy: y, r: 3.5 });
  if (shape === 1) return svg("rect", { class: `point ${look(model)}`, x: x - 3, y: y - 3, width: 6, height: 6 });
  return svg("path", { class: `point ${look(model)}`, d: `M${x} ${y - 4.5}l4.5 8h-9z` });
}

function swatch(model, kind) {
  const picture = svg("svg", { width: 22, height: 12, "aria-hidden": "true" });
  if (kind === "bar") picture.append(svg("rect", { class: `bar ${look(model)}`, x: 5, y: 1, width: 10, height: 10 }));
  else picture.append(svg("path", { class: `line ${look(model)}`, d: "M0 6H22" }), marker(model, 11, 6));
  return picture;
}

// The legend of a chart; pointing at a model dims the others.
function legend(root, board, models, kind) {
  const items = models.map((model) => {
    const item = element("li", {}, swatch(model, kind), board.models[model].name);
    const dim = (on) => {
      for (const part of root.querySelectorAll("[data-model]")) {
        part.classList.toggle("dim", on && part.dataset.model !== String(model));
      }
    };
    item.addEventListener("pointerenter", () => dim(true));
    item.addEventListener("pointerleave", () => dim(false));
    return item;
  });
  return element("ul", { className: "legend" }, ...items);
}

const HEIGHT = 330;
const MARGIN = { left: 48, right: 12, top: 10 };

// An empty chart whose vertical axis is "below" pixels above its edge: its root, the place of a value, the bottom.
function axes(board, metric, width, below, low, high) {
  const scale = board.percent[metric] ? 100 : 1;
  const label = board.percent[metric] ? `${metric} in %` : metric;
  const root = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  const bottom = HEIGHT - below;
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);
  const step = [0.005, 0.01, 0.02, 0.05, 0.1].find((size) => (high - low) / size <= 10) ?? 0.2;
  for (let count = Math.ceil(low / step - 1e-9); count * step <= high + 1e-9; count++) {
    const place = y(count * step);
    const text = +(scale * count * step).toFixed(scale === 100 ? 1 : 3);
    root.append(svg("path", { class: "grid", d: `M${MARGIN.left} ${place}H${width - MARGIN.right}` }));
    root.append(svg("text", { x: MARGIN.left - 6, y: place + 4, "text-anchor": "end" }, text));
  }
  const turned = `translate(12 ${(bottom + MARGIN.top) / 2}) rotate(-90)`;
  root.append(svg("text", { transform: turned, "text-anchor": "middle" }, label));
  return { root, y, bottom };
}

// The limits of a vertical axis around [mean, std] pairs.
function limits(pairs, fromZero, most) {
  const high = Math.max(...pairs.map(([mean, std]) => mean + (std ?? 0)));
  const low = Math.min(...pairs.map(([mean, std]) => mean - (std ?? 0)), ...(fromZero ? [0] : []));
  const room = 0.04 * (high - low) || 0.01;
  return [fromZero ? Math.min(0, low) : low - room, Math.min(most, high + room)];
}

function nothing(box) {
  box.replaceChildren(element("p", { className: "small" }, "No model that is shown has these numbers."));
}

function drawBars(box, board, metric, models, fromZero) {
  const groups = board.rows.filter((row) => row !== "pooled");
  const cells = (row) => models.map((model) => board.models[model].cells[metric][row]);
  const bayes = (metric === "WA" && board.bayes) || {};
  const pairs = groups.flatMap(cells).filter((cell) => cell !== null);
  if (!pairs.length) return nothing(box);
  const [low, high] = limits([...pairs, ...groups.filter((row) => row in bayes).map((row) => [bayes[row], 0])], fromZero, board.percent[metric] ? 1 : Infinity);
  const room = box.clientWidth - MARGIN.left - MARGIN.right;
  const bar = Math.max(5, Math.min(26, Math.floor(room / groups.length / (models.length + 1.5))));
  const group = Math.max(models.length * bar + Math.max(14, bar), room / groups.length);
  const width = MARGIN.left + MARGIN.right + group * groups.length;
  const { root, y, bottom } = axes(board, metric, width, 28, low, high);
  groups.forEach((row, number) => {
    const start = MARGIN.left + number * group + (group - models.length * bar) / 2;
    cells(row).forEach((cell, place) => {
      if (cell === null) return;
      const [mean, std] = cell;
      const x = start + place * bar;
      const middle = x + bar / 2;
      const parts = svg("g", { "data-model": models[place] });
      parts.append(svg("title", {}, `${board.models[models[place]].name}, ${board.labels[row]}: ${metric} ${spread(board, metric, cell)}`));
      const top = Math.min(y(mean), bottom);
      parts.append(svg("rect", { class: `bar ${look(models[place])}`, x: x + 1, y: top, width: bar - 2, height: bottom - top }));
      if (std !== null) {
        const cap = Math.min(4, bar / 3);
        const [upper, lower] = [y(mean + std), Math.min(y(mean - std), bottom)];
        const caps = `M${middle - cap} ${upper}h${2 * cap}M${middle - cap} ${lower}h${2 * cap}`;
        parts.append(svg("path", { class: "whisker", d: `M${middle} ${upper}V${lower}${caps}` }));
      }
      root.append(parts);
    });
    if (row in bayes) {
      const mark = svg("path", { class: "limit", d: `M${start - 4} ${y(bayes[row])}h${models.length * bar + 8}` });
      mark.append(svg("title", {}, `Bayes limit, ${board.labels[row]}: WA ${percent(bayes[row])}`));
      root.append(mark);
    }
    root.append(svg("text", { x: start + (models.length * bar) / 2, y: bottom + 20, "text-anchor": "middle" }, board.labels[row]));
  });
  const names = legend(root, board, models, "bar");
  if (Object.keys(bayes).length) {
    const dash = svg("svg", { width: 22, height: 12 }, svg("path", { class: "limit", d: "M0 6H22" }));
    names.append(element("li", {}, dash, "Bayes limit"));
  }
  box.replaceChildren(root, names);
}

function drawCurve(box, board, metric, models) {
  const swept = models.filter((model) => Object.keys(board.models[model].sweep[metric] ?? {}).length);
  if (!swept.length) return nothing(box);
  const points = (model) => Object.entries(board.models[model].sweep[metric]).map(([rate, cell]) => [Number(rate), ...cell]);
  const all = swept.flatMap(points);
  const [low, high] = limits(all.map(([, mean, std]) => [mean, std]), false, board.percent[metric] ? 1 : Infinity);
  const rates = [...new Set(all.map(([rate]) => rate))].sort((one, other) => one - other);
  const width = Math.max(280, box.clientWidth);
  const { root, y, bottom } = axes(board, metric, width, 44, low, high);
  const last = rates[rates.length - 1] || 1;
  const x = (rate) => MARGIN.left + 16 + (rate / last) * (width - MARGIN.left - MARGIN.right - 32);
  for (const rate of rates) root.append(svg("text", { x: x(rate), y: bottom + 18, "text-anchor": "middle" }, rate.toFixed(1)));
  root.append(svg("text", { x: (MARGIN.left + width) / 2, y: bottom + 38, "text-anchor": "middle" }, "missing rate"));
  const path = (places) => `M${places.map(([across, up]) => `${x(across)} ${y(up)}`).join("L")}`;
  // All bands are drawn below all lines.
  for (const model of swept) {
    const upper = points(model).map(([rate, mean, std]) => [rate, mean + (std ?? 0)]);
    const lower = points(model).map(([rate, mean, std]) => [rate, mean - (std ?? 0)]).reverse();
    root.append(svg("path", { class: `band ${look(model)}`, d: `${path([...upper, ...lower])}Z`, "data-model": model, opacity: Math.min(0.16, 1 / swept.length) }));
  }
  for (const model of swept) {
    const parts = svg("g", { "data-model": model }, svg("path", { class: `line ${look(model)}`, d: path(points(model)) }));
    for (const [rate, mean, std] of points(model)) {
      const dot = marker(model, x(rate), y(mean));
      dot.append(svg("title", {}, `${board.models[model].name}, rate ${rate.toFixed(1)}: ${metric} ${spread(board, metric, [mean, std])}`));
      parts.append(dot);
    }
    root.append(parts);
  }
  box.replaceChildren(root, legend(root, board, swept, "line"));
}

function confusionTable(counts, classes) {
  if (!counts || !counts.flat().some((count) => count)) {
    return element("p", { className: "small" }, "This model does not answer this condition.");
  }
  const heads = classes.map((name) => element("th", { scope: "col" }, name));
  const table = element("table", { className: "confusion" });
  table.append(element("caption", {}, "true class in rows, predicted class in columns"));
  table.append(element("thead", {}, element("tr", {}, element("td"), ...heads)));
  const body = element("tbody");
  counts.forEach((row, number) => {
    const total = row.reduce((sum, count) => sum + count, 0);
    const cells = row.map((count) => {
      const share = total ? count / total : 0;
      const text = total ? `${(100 * share).toFixed(1)} %` : "–";
      const cell = element("td", { className: share > 0.6 ? "strong" : "" }, text, element("small", {}, String(count)));
      cell.style.setProperty("--share", share.toFixed(3));
      return cell;
    });
    body.append(element("tr", {}, element("th", { scope: "row" }, classes[number]), ...cells));
  });
  table.append(body);
  return table;
}
