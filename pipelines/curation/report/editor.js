// Known colours, set on the preview by mouse or keyboard. Their effect is seen at once; `review` makes the picture.
const NO_COLOR = ["neutral", "none", "colourless", "colorless"];
const SLIP = 4; // pixels of the preview that a click may move and still be a point
const read = new Map();

// The pixels of a preview. A page from a disk may show an image but not read it: a script beside it holds the same bytes.
function pixelsOf(script) {
  if (!read.has(script)) {
    read.set(script, loadScript(script).then(async () => {
      const image = new Image();
      image.src = previews.get(script);
      await image.decode();
      const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      return context.getImageData(0, 0, canvas.width, canvas.height);
    }));
  }
  return read.get(script);
}

// #rrggbb of a colour as its author wrote it; null for no colour, undefined if it is none.
function hexOf(text) {
  const name = text.toLowerCase().replaceAll("-", " ").split(/\s+/).filter(Boolean).join(" ");
  if (NO_COLOR.includes(name)) return null;
  return /^#[0-9a-f]{6}$/.test(name) ? name : facts.colors[name] || facts.colors[name.replaceAll("grey", "gray")];
}
const rgbOf = (hex) => hex && [1, 3, 5].map((first) => parseInt(hex.slice(first, first + 2), 16) / 255);

// "x,y,color" and "x,y,width,height,color", as the manifest and the decisions have them.
function placesOf(text) {
  return text.split(";").map((part) => part.trim()).filter(Boolean).map((part) => {
    const [, x, y, , width, height, color] = part.match(/^(\d+),(\d+),((\d+),(\d+),)?(.+)$/);
    return { x: Number(x), y: Number(y), width: Number(width ?? 1), height: Number(height ?? 1), color };
  });
}
const isPoint = ({ width, height }) => width === 1 && height === 1;
const textOf = (place) => [place.x, place.y, ...(isPoint(place) ? [] : [place.width, place.height]), place.color].join(",");

// Between pixels of the preview, which is upright, and of the stored raster: `frame` is [x0, xu, xv, y0, yu, yv] with
// x = x0 + xu u + xv v and y = y0 + yu u + yv v for u and v from 0 to 1 across and down the preview.
function corners(frame, preview) {
  const [x0, xu, xv, y0, yu, yv] = frame, det = xu * yv - xv * yu;
  const stored = (u, v) => [x0 + xu * (u / preview.width) + xv * (v / preview.height), y0 + yu * (u / preview.width) + yv * (v / preview.height)];
  const shown = (x, y) => [(preview.width * (yv * (x - x0) - xv * (y - y0))) / det, (preview.height * (xu * (y - y0) - yu * (x - x0))) / det];
  const box = (way) => ({ x, y, width, height }) => {
    const [a, b] = [way(x, y), way(x + width, y + height)];
    return { x: Math.min(a[0], b[0]), y: Math.min(a[1], b[1]), width: Math.abs(a[0] - b[0]), height: Math.abs(a[1] - b[1]) };
  };
  return { stored: box(stored), shown: box(shown) };
}

// The editor of a row's variant. use(text) is called with the places when the curator is done.
// eslint-disable-next-line no-unused-vars -- the page calls it
async function editPlaces(more, chosen, text, use) {
  const variant = more.variants[chosen], before = await pixelsOf(variant.pixels), { width, height } = before;
  const solver = new HintPreview(before, facts.hinting), way = corners(more.frame, before);
  const canvas = make("canvas", { width, height, tabindex: 0, role: "application",
    "aria-label": "preview: arrow keys move the mark, with Shift by ten; Enter sets a point, B a corner of a box" });
  const marks = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const list = make("ol", {}), said = make("p", { class: "quiet", role: "status" });
  const color = make("input", { list: "color-names", "aria-label": "colour: a name, #rrggbb or neutral", size: 24 });
  const picker = make("input", { type: "color", "aria-label": "colour picker" });
  const taking = make("button", { type: "button", "aria-pressed": "false" }, "Take a colour from a picture");
  let places = placesOf(text), past = [], cursor = [width / 2, height / 2], corner = null, drag = null;

  const choose = (value) => {
    color.value = value;
    const hex = hexOf(value);
    if (hex) picker.value = hex;
  };
  const show = (ghost = null) => {
    marks.replaceChildren(...places.map((place) => shape(way.shown(place), isPoint(place), hexOf(place.color))),
      ...(ghost ? [shape(ghost, false, hexOf(color.value))] : []),
      drawn("path", { class: "cursor", d: `M${cursor[0] - 9} ${cursor[1]}h18M${cursor[0]} ${cursor[1] - 9}v18` }));
  };
  const shape = ({ x, y, width: across, height: down }, point, hex) => {
    const fill = hex === null ? "none" : hex || "#888";
    return point ? drawn("circle", { cx: x + across / 2, cy: y + down / 2, r: 5, fill }) : drawn("rect", { x, y, width: across, height: down, fill, "fill-opacity": 0.25 });
  };
  const paint = () => {
    const started = performance.now();
    const hints = places.map((place) => ({ ...way.shown(place), rgb: rgbOf(hexOf(place.color)) }));
    const pixels = places.length ? solver.paint(hints) : before.data;
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels), width, height), 0, 0);
    canvas.dataset.milliseconds = String(Math.round(performance.now() - started));
    list.replaceChildren(...places.map((place, index) => make("li", {},
      make("span", { class: "swatch", style: `background:${hexOf(place.color) || "transparent"}` }), textOf(place), " ",
      make("button", { type: "button", "aria-label": `remove ${textOf(place)}`, onclick: () => change(places.filter((_, other) => other !== index)) }, "Remove"))));
    undo.disabled = !past.length;
    done.disabled = !places.length || places.map(textOf).join("; ") === text;
    show();
  };
  const change = (next) => { past.push(places); places = next; paint(); };
  const add = (box) => {
    if (hexOf(color.value) === undefined) {
      said.textContent = `${color.value ? `“${color.value}” is no colour of the table` : "Choose a colour first"}: a name, #rrggbb, or neutral for none.`;
      color.focus();
      return;
    }
    const stored = way.stored(box);
    const place = { x: Math.floor(stored.x + 1e-6), y: Math.floor(stored.y + 1e-6), width: 1, height: 1, color: color.value.trim() };
    if (box.width) Object.assign(place, { width: Math.max(1, Math.round(stored.width)), height: Math.max(1, Math.round(stored.height)) });
    said.textContent = "";
    change([...places.filter((one) => textOf({ ...one, color: "" }) !== textOf({ ...place, color: "" })), place]);
  };
  const undoing = () => { if (past.length) { places = past.pop(); paint(); } };
  const undo = make("button", { type: "button", onclick: undoing }, "Undo");
  const done = make("button", { type: "button", class: "approve", onclick: () => use(places.map(textOf).join("; ")) }, "Approve with these colours");

  // With the mouse
  const pointAt = (event, element, size) => {
    const box = element.getBoundingClientRect(), scale = Math.min(box.width / size.width, box.height / size.height);
    const inside = (value, most) => Math.min(most - 0.5, Math.max(0.5, value));
    return [inside((event.clientX - box.left - (box.width - scale * size.width) / 2) / scale, size.width),
      inside((event.clientY - box.top - (box.height - scale * size.height) / 2) / scale, size.height)];
  };
  const between = ([x, y], [u, v]) => ({ x: Math.min(x, u), y: Math.min(y, v), width: Math.abs(x - u), height: Math.abs(y - v) });
  const isTaking = () => taking.getAttribute("aria-pressed") === "true";
  const take = (pixels, [x, y]) => {
    const first = 4 * (Math.floor(y) * pixels.width + Math.floor(x));
    choose("#" + Array.from(pixels.data.slice(first, first + 3), (value) => value.toString(16).padStart(2, "0")).join(""));
    taking.setAttribute("aria-pressed", "false");
    said.textContent = `${color.value} taken.`;
  };
  const finish = (from, to) => {
    if (isTaking()) { take(canvas.getContext("2d").getImageData(0, 0, width, height), to); return; }
    const box = between(from, to);
    add(Math.max(box.width, box.height) <= SLIP ? { x: from[0], y: from[1], width: 0, height: 0 } : box);
  };
  canvas.addEventListener("pointerdown", (event) => {
    drag = cursor = pointAt(event, canvas, before);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => { if (drag) show(between(drag, pointAt(event, canvas, before))); });
  canvas.addEventListener("pointerup", (event) => {
    if (!drag) return;
    cursor = pointAt(event, canvas, before);
    const from = drag;
    drag = null;
    finish(from, cursor);
    show();
  });
  canvas.addEventListener("pointercancel", () => { drag = null; show(); });
  taking.addEventListener("click", () => taking.setAttribute("aria-pressed", String(!isTaking())));
  at("detail-body").addEventListener("click", async (event) => {
    const number = event.target.closest("img[data-variant]")?.dataset.variant;
    if (number === undefined || !isTaking() || !canvas.isConnected) return;
    const pixels = await pixelsOf(more.variants[number].pixels);
    take(pixels, pointAt(event, event.target, pixels));
  });

  // With the keyboard
  canvas.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (moves[key]) {
      cursor = [Math.min(width - 0.5, Math.max(0.5, cursor[0] + moves[key][0])), Math.min(height - 0.5, Math.max(0.5, cursor[1] + moves[key][1]))];
      show(corner && between(corner, cursor));
    } else if (key === "Enter") finish(cursor, cursor);
    else if (key === "b" && corner) { const from = corner; corner = null; finish(from, cursor); }
    else if (key === "b") corner = cursor;
    else if (key === "z") undoing();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  picker.addEventListener("input", () => choose(picker.value));
  color.addEventListener("change", () => choose(color.value));
  choose("");
  paint();
  return make("div", { class: "places" },
    make("p", {}, "What colour is it really? Choose a colour, then click the thing, or draw a box on it. Neutral takes colour away."),
    make("div", { class: "actions" }, make("label", {}, "Colour ", color), picker,
      make("button", { type: "button", onclick: () => choose("neutral") }, "Neutral"), taking, undo, done),
    make("div", { class: "stage" }, canvas, marks), said, list);
}
