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

// By the model's name alone, see looks.py: a colour, a marker, and dashes of lines or a hatch of bars.
const classes = ({ colour, line, hollow }) => `c${colour} s${line}${hollow ? " hollow" : ""}`;

// Points of a shape around its centre; a circle has none.
const turned = (points, angle) =>
  points.map(([x, y]) => [x * Math.cos(angle) - y * Math.sin(angle), x * Math.sin(angle) + y * Math.cos(angle)]);
const around = (count, radii) =>
  Array.from({ length: count }, (_, number) => {
    const [angle, radius] = [(2 * Math.PI * number) / count, radii[number % radii.length]];
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  });
const PLUS = [[-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1]];
const SHAPES = {
  s: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
  P: PLUS.map(([x, y]) => [0.38 * x, 0.38 * y]),
  X: turned(PLUS, Math.PI / 4).map(([x, y]) => [0.38 * x, 0.38 * y]),
  "^": [[0, -1.1], [1.1, 0.85], [-1.1, 0.85]],
  v: [[0, 1.1], [1.1, -0.85], [-1.1, -0.85]],
  D: [[0, -1.25], [1.1, 0], [0, 1.25], [-1.1, 0]],
  h: around(6, [1.1]),
  "*": around(10, [1.45, 0.6]),
};

function marker(look, x, y, size = 3.8) {
  const shape = SHAPES[look.marker];
  if (!shape) return svg("circle", { class: `point ${classes(look)}`, cx: x, cy: y, r: 0.92 * size });
  const points = shape.map(([right, down]) => `${(x + size * right).toFixed(2)} ${(y + size * down).toFixed(2)}`);
  return svg("path", { class: `point ${classes(look)}`, d: `M${points.join("L")}z` });
}

// A bar, and on it the hatch of its style.
function bar(look, x, y, width, height) {
  const place = { x, y, width, height };
  const parts = svg("g", {}, svg("rect", { class: `bar ${classes(look)}`, ...place }));
  if (look.line) parts.append(svg("rect", { fill: `url(#hatch${look.line})`, ...place }));
  return parts;
}

function swatch(look, kind) {
  const picture = svg("svg", { width: 22, height: 12, "aria-hidden": "true" });
  if (kind === "bar") picture.append(bar(look, 5, 1, 10, 10));
  if (kind === "line") picture.append(svg("path", { class: `line ${classes(look)}`, d: "M0 6H22" }));
  if (kind !== "bar") picture.append(marker(look, 11, 6));
  return picture;
}

// The legend of a chart; pointing at one of its series dims the others.
function legend(root, series, kind) {
  const items = series.map(({ key, name, look }) => {
    const item = element("li", {}, swatch(look, kind), name);
    const dim = (on) => {
      for (const part of root.querySelectorAll("[data-model]")) {
        part.classList.toggle("dim", on && part.dataset.model !== String(key));
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
  const step = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5].find((size) => (high - low) / size <= 10) ?? 10;
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

const LABEL = 80; // pixels that the longest label of a condition takes in one line
const MOST_BARS = 8; // more models are dots, see benchmarks/figures/conditions.py

// Bars of a few models, dots of many: in each condition from left to right as in the legend.
function drawConditions(box, board, metric, models, fromZero) {
  const dots = models.length > MOST_BARS;
  const groups = board.rows.filter((row) => row !== "pooled");
  const cells = (row) => models.map((model) => board.models[model].cells[metric][row]);
  const bayes = (metric === board.limited && board.bayes) || {};
  const pairs = groups.flatMap(cells).filter((cell) => cell !== null);
  if (!pairs.length) return nothing(box);
  const limited = groups.filter((row) => row in bayes).map((row) => [bayes[row], 0]);
  const [low, high] = limits([...pairs, ...limited], fromZero && !dots, board.percent[metric] ? 1 : Infinity);
  const room = (box.clientWidth - MARGIN.left - MARGIN.right) / groups.length;
  const pitch = dots ? Math.max(4, room / (models.length + 3)) : Math.max(5, Math.min(26, Math.floor(room / (models.length + 1.5))));
  const group = Math.max(models.length * pitch + Math.max(14, pitch), room);
  const width = MARGIN.left + MARGIN.right + group * groups.length;
  const { root, y, bottom } = axes(board, metric, width, group < LABEL ? 42 : 28, low, high);
  groups.forEach((row, number) => {
    const left = MARGIN.left + number * group;
    const start = left + (group - models.length * pitch) / 2;
    if (dots && number % 2 === 0) {
      root.prepend(svg("rect", { class: "stripe", x: left, y: MARGIN.top, width: group, height: bottom - MARGIN.top }));
    }
    cells(row).forEach((cell, place) => {
      if (cell === null) return;
      const { name, look } = board.models[models[place]];
      const [mean, std] = cell;
      const x = start + place * pitch;
      const middle = x + pitch / 2;
      const parts = svg("g", { "data-model": models[place] });
      parts.append(svg("title", {}, `${name}, ${board.labels[row]}: ${metric} ${spread(board, metric, cell)}`));
      const top = Math.min(y(mean), bottom);
      if (!dots) parts.append(bar(look, x + 1, top, pitch - 2, bottom - top));
      if (std !== null) {
        const [upper, lower] = [y(mean + std), Math.min(y(mean - std), bottom)];
        const cap = dots ? 0 : Math.min(4, pitch / 3);
        const caps = cap ? `M${middle - cap} ${upper}h${2 * cap}M${middle - cap} ${lower}h${2 * cap}` : "";
        const own = dots ? ` own c${look.colour}` : "";
        parts.append(svg("path", { class: `whisker${own}`, d: `M${middle} ${upper}V${lower}${caps}` }));
      }
      if (dots) parts.append(marker(look, middle, y(mean), 3.4));
      root.append(parts);
    });
    if (row in bayes) {
      const mark = svg("path", { class: "limit", d: `M${start - 4} ${y(bayes[row])}h${models.length * pitch + 8}` });
      mark.append(svg("title", {}, `Bayes limit, ${board.labels[row]}: ${metric} ${shown(board, metric, bayes[row])}`));
      root.append(mark);
    }
    const lines = group < LABEL ? board.labels[row].split(" ") : [board.labels[row]];
    lines.forEach((text, line) => {
      root.append(svg("text", { x: left + group / 2, y: bottom + 20 + 14 * line, "text-anchor": "middle" }, text));
    });
  });
  const series = models.map((model) => ({ key: model, ...board.models[model] }));
  const names = legend(root, series, dots ? "dot" : "bar");
  if (Object.keys(bayes).length) names.append(limitItem());
  box.replaceChildren(root, names);
}

// The Bayes limit in a legend.
function limitItem() {
  const dash = svg("svg", { width: 22, height: 12 }, svg("path", { class: "limit", d: "M0 6H22" }));
  return element("li", {}, dash, "Bayes limit");
}

// A line over the missing rate for each of "series": its key, name, look and points [rate, mean, std]; and [rate, limit].
function drawLines(box, board, metric, series, label, [low, high], limit = []) {
  const all = series.flatMap(({ points }) => points);
  const rates = [...new Set(all.map(([rate]) => rate))].sort((one, other) => one - other);
  const width = Math.max(280, box.clientWidth);
  const { root, y, bottom } = axes(board, metric, width, 44, low, high);
  const last = rates[rates.length - 1] || 1;
  const x = (rate) => MARGIN.left + 16 + (rate / last) * (width - MARGIN.left - MARGIN.right - 32);
  for (const rate of rates) root.append(svg("text", { x: x(rate), y: bottom + 18, "text-anchor": "middle" }, rate.toFixed(1)));
  root.append(svg("text", { x: (MARGIN.left + width) / 2, y: bottom + 38, "text-anchor": "middle" }, label));
  const path = (places) => `M${places.map(([across, up]) => `${x(across)} ${y(up)}`).join("L")}`;
  // All bands, of a few models, are drawn below all lines.
  for (const { key, look, points } of series) {
    if (series.length > MOST_BARS || points.every(([, , std]) => std === null)) continue;
    const upper = points.map(([rate, mean, std]) => [rate, mean + (std ?? 0)]);
    const lower = points.map(([rate, mean, std]) => [rate, mean - (std ?? 0)]).reverse();
    root.append(svg("path", { class: `band c${look.colour}`, d: `${path([...upper, ...lower])}Z`, "data-model": key, opacity: 0.13 }));
  }
  for (const { key, name, look, points } of series) {
    const parts = svg("g", { "data-model": key }, svg("path", { class: `line ${classes(look)}`, d: path(points) }));
    for (const [rate, mean, std] of points) {
      const dot = marker(look, x(rate), y(mean));
      dot.append(svg("title", {}, `${name}, rate ${rate.toFixed(1)}: ${metric} ${spread(board, metric, [mean, std])}`));
      parts.append(dot);
    }
    root.append(parts);
  }
  const names = legend(root, series, "line");
  if (limit.length) {
    root.append(svg("path", { class: "limit", d: path(limit) }));
    for (const [rate, value] of limit) {
      const title = svg("title", {}, `Bayes limit, rate ${rate.toFixed(1)}: ${metric} ${shown(board, metric, value)}`);
      root.append(svg("circle", { cx: x(rate), cy: y(value), r: 4, opacity: 0 }, title));
    }
    names.append(limitItem());
  }
  box.replaceChildren(root, names);
}

// Lines of one rate curve of ours, of those models that have it.
function oursOf(board, curve, metric, models, suffix = "") {
  const cells = (model) => board.models[model].rates[curve]?.[metric] ?? {};
  return models.filter((model) => Object.keys(cells(model)).length).map((model) => ({
    key: model,
    ...board.models[model],
    name: board.models[model].name + suffix,
    points: Object.entries(cells(model)).map(([rate, cell]) => [Number(rate), ...cell]),
  }));
}

const rangeOf = (board, metric, series, limit = []) => {
  const drawn = series.flatMap(({ points }) => points);
  const heights = [...drawn.map(([, mean, std]) => [mean, std]), ...limit.map(([, value]) => [value, 0])];
  return drawn.length ? limits(heights, false, board.percent[metric] ? 1 : Infinity) : null;
};

// Ours, and below it what others published, a chart for each protocol, all with the same vertical axis. Ours are beside
// theirs where there is a curve in their protocol.
function drawCurves(box, others, board, metric, models, withPublished) {
  const ours = oursOf(board, "modalities", metric, models);
  const published = board.curves.map(({ lines, ours: curve }) => {
    const theirs = (lines[metric] ?? []).map((line, key) => ({ key: `published ${key}`, ...line }));
    return theirs.length && curve ? [...theirs, ...oursOf(board, curve, metric, models, ", ours")] : theirs;
  });
  const limit = metric === board.limited && ours.length ? board.bayes_over_rates : [];
  const range = rangeOf(board, metric, [...ours, ...(withPublished ? published.flat() : [])], limit);
  if (ours.length) drawLines(box, board, metric, ours, board.axes.modalities, range, limit);
  else nothing(box);
  others.forEach((figure, number) => {
    figure.hidden = !(withPublished && published[number].length);
    if (!figure.hidden) drawLines(figure.querySelector(".chart"), board, metric, published[number], "published missing rate", range);
  });
}

// The other patterns, a chart for each.
function drawFurther(figures, board, metric, models) {
  for (const figure of figures) {
    const { curve } = figure.dataset;
    const [ours, box] = [oursOf(board, curve, metric, models), figure.querySelector(".chart")];
    if (ours.length) drawLines(box, board, metric, ours, board.axes[curve], rangeOf(board, metric, ours));
    else nothing(box);
  }
}

function confusionTable(counts, classes, kind) {
  if (!counts || !counts.flat().some((count) => count)) {
    return element("p", { className: "small" }, "This model does not answer this condition.");
  }
  const heads = classes.map((name) => element("th", { scope: "col" }, name));
  const table = element("table", { className: "confusion" });
  table.append(element("caption", {}, `true ${kind} in rows, predicted ${kind} in columns`));
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
