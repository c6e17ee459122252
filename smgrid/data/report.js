"use strict";
(() => {
  // Everything drawn comes from the JSON beside this script; names only ever become text, never markup.
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const MISSING = 65535, GREY = [201, 201, 201], SEAM = "#c2185b";
  const { ny, nx, step, row, col } = data.grid;
  const bytes = Uint8Array.from(atob(data.values), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const state = { left: data.start[0], right: data.start[1], day: 0, split: 0.5, cell: null, edges: data.borders };

  const value = (layer, r, c) => {
    const code = view.getUint16(2 * (((layer * data.days.length + state.day) * ny + r) * nx + c), true);
    return code === MISSING ? NaN : data.offset + data.scale * code;
  };
  const number = (v, sign) => Number.isNaN(v) ? "missing"
    : (v < 0 ? "\u2212" : sign ? "+" : "") + Math.abs(v).toFixed(data.digits);
  const degrees = (v, halves) => Math.abs(v).toFixed(4) + "\u00b0" + (v < 0 ? halves[0] : halves[1]);
  const colours = data.colours.map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)));

  // ---- pictures of whole layers, one pixel a cell, made once each
  const pictures = new Map();
  const picture = (layer) => {
    const key = layer + "/" + state.day;
    if (!pictures.has(key)) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [nx, ny];
      const pen = canvas.getContext("2d"), image = pen.createImageData(nx, ny);
      for (let k = 0; k < ny * nx; k++) {
        const v = value(layer, Math.floor(k / nx), k % nx);
        const place = Math.round(255 * (v - data.low) / (data.high - data.low));
        const colour = Number.isNaN(v) ? GREY : colours[Math.min(255, Math.max(0, place))];
        image.data.set([...colour, 255], 4 * k);
      }
      pen.putImageData(image, 0, 0);
      pictures.set(key, canvas);
    }
    return pictures.get(key);
  };

  const canvas = at("canvas"), pen = canvas.getContext("2d");
  const width = Math.max(nx, Math.ceil(1200 / nx) * nx), height = Math.round(width * data.aspect * ny / nx);
  [canvas.width, canvas.height] = [width, height];

  const draw = () => {
    const split = state.split * width, unit = [width / nx, height / ny];
    pen.imageSmoothingEnabled = false;
    [[state.left, 0, split], [state.right, split, width]].forEach(([layer, from, to]) => {
      if (to <= from) return;
      pen.save();
      pen.beginPath(); pen.rect(from, 0, to - from, height); pen.clip();
      pen.drawImage(picture(layer), 0, 0, width, height);
      const borders = data.edges[layer] && data.edges[layer][state.day];
      if (state.edges && borders) {
        pen.strokeStyle = SEAM; pen.lineWidth = Math.max(1.5, Math.min(width / 220, 0.54 * unit[0] / step)); pen.beginPath();
        borders.forEach(([x0, y0, x1, y1]) => {
          pen.moveTo(x0 * unit[0], y0 * unit[1]); pen.lineTo(x1 * unit[0], y1 * unit[1]);
        });
        pen.stroke();
      }
      pen.restore();
    });
    pen.fillStyle = "#000"; pen.fillRect(split - 2, 0, 4, height);
    pen.fillStyle = "#fff"; pen.fillRect(split - 1, 0, 2, height);
    if (state.cell) {
      const [r, c] = state.cell;
      [["#fff", 5], ["#000", 2]].forEach(([colour, thick]) => {
        pen.strokeStyle = colour; pen.lineWidth = thick;
        pen.strokeRect(c * unit[0], r * unit[1], unit[0], unit[1]);
      });
    }
  };

  const read = () => {
    if (!state.cell) return;
    const [r, c] = state.cell, [a, b] = [state.left, state.right].map((layer) => value(layer, r, c));
    const names = [state.left, state.right].map((layer) => data.layers[layer]);
    const place = degrees(data.lat[r], "SN") + ", " + degrees(data.lon[c], "WE")
      + " (row " + (row + r * step) + ", column " + (col + c * step) + ")";
    const lines = [names[0] + ": " + number(a), names[1] + ": " + number(b)];
    if (state.left === state.right) lines.pop();
    else lines.push("left less right: " + (Number.isNaN(a - b) ? "n/a" : number(a - b, true)));
    at("reading").textContent = place + "\n" + lines.join("\n") + " " + data.units;
  };

  const show = () => {
    at("left-name").textContent = data.layers[state.left];
    at("right-name").textContent = data.layers[state.right];
    draw(); read();
  };
  const go = (r, c) => {
    state.cell = [Math.min(ny - 1, Math.max(0, r)), Math.min(nx - 1, Math.max(0, c))];
    draw(); read();
  };

  // ---- hands on it
  const fill = (id, names, chosen) => {
    names.forEach((name, k) => at(id).add(new Option(name, k, false, k === chosen)));
    at(id).addEventListener("change", (event) => { state[id] = Number(event.target.value); show(); });
  };
  fill("left", data.layers, state.left);
  fill("right", data.layers, state.right);
  fill("day", data.days.map((day) => day || "no date"), 0);
  at("day-label").hidden = data.days.length < 2;
  at("edges").checked = state.edges;
  at("edges-label").hidden = !data.edges.some((days) => days && days.some((borders) => borders.length));
  at("edges").addEventListener("change", (event) => { state.edges = event.target.checked; draw(); });
  at("divider").addEventListener("input", (event) => { state.split = event.target.value / 1000; draw(); });
  at("controls").addEventListener("submit", (event) => event.preventDefault());

  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left - canvas.clientLeft) / canvas.clientWidth;
    const y = (event.clientY - box.top - canvas.clientTop) / canvas.clientHeight;
    go(Math.floor(y * ny), Math.floor(x * nx));
    if (event.buttons & 1 && event.pointerType !== "touch") {
      state.split = Math.min(1, Math.max(0, x));
      at("divider").value = Math.round(1000 * state.split);
      draw();
    }
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? Math.max(1, Math.round(9 / step)) : 1;
    const move = { ArrowUp: [-far, 0], ArrowDown: [far, 0], ArrowLeft: [0, -far], ArrowRight: [0, far] }[event.key];
    if (!move) return;
    event.preventDefault();
    const [r, c] = state.cell || [Math.floor(ny / 2), Math.floor(nx / 2)];
    if (state.cell) go(r + move[0], c + move[1]); else go(r, c);
  });

  const bar = at("bar").getContext("2d");
  data.colours.forEach((colour, k) => { bar.fillStyle = colour; bar.fillRect(k, 0, 1, 1); });
  at("low").textContent = data.low.toFixed(2);
  at("high").textContent = data.high.toFixed(2);
  at("units").textContent = data.units;
  at("controls").hidden = at("stage").hidden = false;
  show();
})();
