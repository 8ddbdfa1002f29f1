"use strict";
const PAGE = 24;
const rows = [];
const details = new Map();
const previews = new Map();
const waiting = new Map();
// eslint-disable-next-line no-unused-vars -- the data scripts call it
const report = {
  rows(number, content) { content.forEach((row, index) => { row.place = [number, index]; }); rows[number] = content; },
  details(number, content) { details.set(number, content); },
  preview(script, image) { previews.set(script, image); },
};

// Everything on the page is made of elements and text nodes: no text of a manifest is ever read as HTML.
function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
function drawn(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const at = (id) => document.getElementById(id);
const percent = (share) => (share === null ? "" : (100 * share).toFixed(share < 0.1 ? 1 : 0) + " %");

const load = (name, number) => loadScript(`data/${name}-${String(number).padStart(4, "0")}.js`);
function loadScript(key) {
  if (!waiting.has(key)) {
    waiting.set(key, new Promise((resolve, reject) => {
      document.head.append(make("script", { src: key, onload: resolve, onerror: () => reject(new Error(key)) }));
    }));
  }
  return waiting.get(key);
}

// Decisions ----------------------------------------------------------------------------------------------------------

const STORE = `diffcolor-batch ${facts.output} ${facts.job.plan}`;
let decided = {};
const notes = {};
try { decided = JSON.parse(localStorage.getItem(STORE)) || {}; } catch { decided = {}; }
try { at("reviewer").value = localStorage.getItem("diffcolor-batch reviewer") || ""; } catch { /* a browser without memory */ }
function keep() {
  try { localStorage.setItem(STORE, JSON.stringify(decided)); } catch { /* then they last until the page is closed */ }
}
// A decision is about the bytes that were looked at: of a picture that was made anew since, it is none.
function decisionOf(row) {
  const one = decided[row.id] || (row.id in decided ? null : row.decision);
  return one && row.variants.some((variant) => variant.sha256 === one.output_sha256) ? one : null;
}
function shownVariant(row) {
  const one = decisionOf(row);
  const index = one ? row.variants.findIndex((variant) => variant.sha256 === one.output_sha256) : 0;
  return Math.max(0, index);
}
const MADE = { eta: "", hints: "" }; // the picture as it is
// What was asked for before, an eta or known colours, stays unless it is given anew, as long as the variant does.
function decide(row, decision, index = shownVariant(row), asked = {}) {
  if (!row.variants.length) return;
  if (decision === null) decided[row.id] = null;
  else {
    const variant = row.variants[index];
    const before = decisionOf(row);
    const kept = before && before.output_sha256 === variant.sha256 && decision !== "reject" ? before : {};
    const { eta = kept.eta || "", hints = kept.hints || "" } = asked;
    decided[row.id] = {
      decision: decision === "approve" && (eta || hints) ? "pick" : decision,
      output_sha256: variant.sha256, prompt: variant.prompt, eta: String(eta), hints,
      reviewer: at("reviewer").value, note: notes[row.id] ?? (before ? before.note || "" : ""), time: new Date().toISOString(),
    };
  }
  keep();
  refresh(row);
}
function cell(value) {
  let text = String(value ?? "");
  if (/^[=+\-@\t\r]/.test(text)) text = "'" + text;  // a spreadsheet must not take it for a formula
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
function decisionsCsv() {
  const names = ["id", "output_sha256", "decision", "prompt", "eta", "hints", "reviewer", "note", "time"];
  const lines = [names.join(",")];
  for (const row of all()) {
    const one = decisionOf(row);
    if (one) lines.push(names.map((name) => cell(name === "id" ? row.id : one[name])).join(","));
  }
  return lines.join("\r\n") + "\r\n";
}
function saveCsv() {
  const link = make("a", { href: "data:text/csv;charset=utf-8," + encodeURIComponent(decisionsCsv()), download: "decisions.csv" });
  document.body.append(link);
  link.click();
  link.remove();
}

// Gallery ------------------------------------------------------------------------------------------------------------

const all = () => rows.flat();
let found = [];
let page = 0;
let current = 0;
let editing = false; // known colours

function search() {
  const text = at("search").value.trim().toLowerCase();
  const status = at("status").value, warning = at("warning").value, decision = at("decision").value;
  const kind = (one) => one.split(":")[0];
  found = all().filter((row) => {
    if (status && row.status !== status) return false;
    if (warning && !row.warnings.some((one) => kind(one) === warning)) return false;
    const one = decisionOf(row);
    if (decision && (one ? one.decision : "none") !== decision) return false;
    if (!text) return true;
    return [row.id, row.caption, row.group, row.kind, ...row.variants.map((variant) => variant.prompt)]
      .some((value) => value && value.toLowerCase().includes(text));
  });
  const order = at("order").value;
  const figure = (row) => {
    const values = row.variants.map((variant) => variant[order]).filter((value) => value !== null && value !== undefined);
    if (order === "seconds") return -(row.seconds ?? -1);
    if (!values.length) return Infinity;
    return order === "margin" ? Math.min(...values) : -Math.max(...values);
  };
  if (order) found.sort((a, b) => figure(a) - figure(b));
  page = 0;
  current = 0;
  show();
}

function slider(row, index, large = false) {
  const variant = row.variants[index];
  const box = make("div", { class: large ? "slider large" : "slider" });
  const set = (value) => box.style.setProperty("--at", value + "%");
  set(50);
  const before = make("img", { src: row.gray, alt: `${row.id}: the scan`, loading: "lazy", decoding: "async" });
  const after = make("img", {
    class: "after", src: variant.preview, alt: `${row.id}: colours made by a machine for “${variant.prompt}”`, loading: "lazy", decoding: "async",
  });
  const range = make("input", {
    type: "range", min: 0, max: 100, value: 50, "aria-label": `${row.id}: how much of the scan covers the colours, in percent`,
    oninput: (event) => set(event.target.value),
  });
  box.append(before, after, make("div", { class: "line" }), range);
  box.append(make("span", { class: "tag", style: "left:6px" }, "scan"), make("span", { class: "tag", style: "right:6px" }, "machine’s colours"));
  return box;
}

function card(row, index) {
  const decision = decisionOf(row);
  const item = make("li", { class: "card" + (decision ? " " + decision.decision : ""), "data-id": row.id, tabindex: -1 });
  item.addEventListener("focusin", () => mark(index));
  if (row.variants.length) {
    const chosen = shownVariant(row);
    item.append(slider(row, chosen));
    item.append(make("h3", {}, row.id), make("p", {}, row.variants[chosen].prompt));
    if (row.variants.length > 1) item.append(variantButtons(row, chosen));
    const figures = row.variants[chosen];
    item.append(make("p", { class: "quiet" }, `colourfulness ${figures.colorfulness}, agreement ${figures.margin}` +
      (figures.reduced === null ? "" : `, chroma reduced in ${percent(figures.reduced)}`)));
    for (const warning of row.warnings) item.append(make("p", { class: "warn" }, "⚠ " + warning));
    item.append(actions(row));
  } else {
    item.append(make("h3", {}, row.id), make("p", {}, row.caption || ""));
    item.append(make("p", { class: "fail" }, `${row.status}: ${row.kind}: ${row.message}`));
  }
  return item;
}
function variantButtons(row, chosen) {
  return make("div", { class: "variants", role: "group", "aria-label": "variants" }, ...row.variants.map((variant, number) =>
    make("button", {
      type: "button", title: variant.prompt, "aria-pressed": String(number === chosen), "aria-label": `variant ${number + 1}: ${variant.prompt}`,
      onclick: () => decide(row, number ? "pick" : "approve", number, MADE),
    }, make("img", { src: variant.preview, alt: "", loading: "lazy" }))));
}
function actions(row, close = false) {
  const decision = decisionOf(row);
  const state = decision ? decision.decision : null;
  const asked = decision && [decision.eta ? `at eta ${decision.eta}` : "", decision.hints ? "with known colours" : ""].filter(Boolean).join(", ");
  return make("div", { class: "actions" },
    make("button", { type: "button", class: "approve", "aria-pressed": String(state === "approve" || state === "pick"),
      onclick: () => decide(row, state === "pick" ? "pick" : "approve") }, state === "pick" ? `Approved: picked ${asked}`.trim() : "Approve"),
    make("button", { type: "button", class: "reject", "aria-pressed": String(state === "reject"), onclick: () => decide(row, "reject") }, "Reject"),
    close ? null : make("button", { type: "button", onclick: () => look(row) }, "Look closely"));
}

function show() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(page, pages - 1);
  const first = page * PAGE;
  at("cards").replaceChildren(...found.slice(first, first + PAGE).map((row, index) => card(row, first + index)));
  at("page").textContent = `${found.length} of ${all().length} rows, page ${page + 1} of ${pages}`;
  at("previous").disabled = page === 0;
  at("next").disabled = page === pages - 1;
  mark(Math.min(Math.max(current, first), Math.max(first, found.length - 1)));
  tally();
}
function mark(index) {
  current = index;
  document.querySelectorAll(".card").forEach((element, number) => element.classList.toggle("current", page * PAGE + number === index));
}
function go(step) {
  if (!found.length) return;
  const index = Math.min(found.length - 1, Math.max(0, current + step));
  current = index;
  if (Math.floor(index / PAGE) !== page) { page = Math.floor(index / PAGE); show(); }
  mark(index);
  const element = at("cards").children[index - page * PAGE];
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest" });
  if (at("detail").open) look(found[index]);
}
function refresh(row) {
  const index = found.indexOf(row) - page * PAGE;
  const old = at("cards").children[index];
  if (index >= 0 && old) {
    const held = old.contains(document.activeElement);
    old.replaceWith(card(row, index + page * PAGE));
    mark(current);
    if (held) at("cards").children[index].focus({ preventScroll: true });
  }
  if (at("detail").open && at("detail").dataset.id === row.id) look(row);
  tally();
}
function tally() {
  const counts = { approve: 0, pick: 0, reject: 0 };
  let open = 0;
  for (const row of all()) {
    if (!row.variants.length) continue;
    const one = decisionOf(row);
    if (one) counts[one.decision] += 1; else open += 1;
  }
  at("progress").textContent = `${counts.approve + counts.pick} approved (${counts.pick} with another variant), ${counts.reject} rejected, ${open} to decide`;
}

// One picture --------------------------------------------------------------------------------------------------------

async function look(row) {
  if (!row.variants.length) return;
  await load("details", row.place[0]);
  const more = details.get(row.place[0])[row.place[1]];
  const dialog = at("detail"), chosen = shownVariant(row), decision = decisionOf(row);
  dialog.dataset.id = row.id;
  at("detail-title").textContent = row.id;
  const body = at("detail-body");
  const note = make("textarea", { rows: 2, "aria-label": "note", placeholder: "a note to go with the decision" });
  note.value = notes[row.id] ?? (decision ? decision.note || "" : "");
  note.addEventListener("input", () => {  // kept with the decision, or until there is one: a note decides nothing
    notes[row.id] = note.value;
    const one = decisionOf(row);
    if (one) { decided[row.id] = { ...one, note: note.value }; keep(); }
  });
  body.replaceChildren(
    slider(row, chosen, true),
    make("p", {}, make("b", {}, "Text: "), row.variants[chosen].prompt),
    ...knownColours(more.variants[chosen].hints || []), ...example(more.variants[chosen]),
    make("p", { class: "quiet" }, `Context prompt: ${row.caption}. ${facts.statement}`),
    ...row.warnings.map((warning) => make("p", { class: "warn" }, "⚠ " + warning)),
    actions(row, true), note, knownPlaces(row, more, chosen, decision),
    make("h3", {}, "All variants"), allVariants(row, more, chosen),
    make("h3", {}, "Eta ladder of this variant"), ladder(row, more, chosen, decision),
    make("h3", {}, "Luminance"), luminance(row, more, chosen),
    make("h3", {}, "Losses"), curves(more.losses),
    make("h3", {}, "Provenance"), provenance(row, more, chosen));
  if (!dialog.open) dialog.showModal();
}
function knownColours(hints) {
  if (!hints.length) return [];
  const said = hints.map(([hint, kept]) => kept < 0.9 ? `${hint} (${Math.round(100 * kept)} % of its chroma: the gray leaves no room)` : hint);
  return [make("p", {}, make("b", {}, "Known colours (x, y, ...): "), said.join("; "))];
}
function example({ reference, likeness }) {
  if (!reference) return [];
  const taken = likeness ? `; ${percent(likeness)} alike` : "; nothing in the picture is like it, so it changed nothing";
  return [make("p", {}, make("b", {}, "Colours taken from: "), reference + taken)];
}
// Opened on request: the editor reads the preview's pixels.
function knownPlaces(row, more, chosen, decision) {
  const variant = more.variants[chosen];
  if (!variant.pixels) return make("p", { class: "quiet" }, "Known colours cannot be set here: the picture was made by an older version. Use recolor --point.");
  const text = (decision && decision.hints) || (variant.hints || []).map(([hint]) => hint).join("; ");
  const box = make("details", {}, make("summary", {}, "Set known colours"));
  box.addEventListener("toggle", async () => {
    editing = box.open;
    if (box.open && box.children.length === 1) box.append(await editPlaces(more, chosen, text, (hints) => decide(row, "pick", chosen, { hints })));
  });
  box.open = editing;
  return box;
}
function allVariants(row, more, chosen) {
  const side = make("div", { class: "side" });
  side.append(framed(row.gray, "the scan", `${row.id}: the scan`));
  const guessed = more.variants[chosen].guessed;
  if (guessed) side.append(framed(guessed, `where the model is guessing: its colours differ by ${row.variants[chosen].spread} units of a*b* on average`, `${row.id}: the scan, orange where the model is guessing`));
  if (more.primary) side.append(framed(more.primary, "stage 1’s own colours", `${row.id}: colours that stage 1 found`));
  row.variants.forEach((variant, number) => {
    const frame = framed(variant.preview, `${number + 1}: ${variant.prompt}`, `${row.id}: variant ${number + 1}`);
    if (more.variants[number].pixels) frame.firstElementChild.dataset.variant = String(number);
    frame.classList.toggle("chosen", number === chosen);
    frame.append(make("button", { type: "button", onclick: () => decide(row, number ? "pick" : "approve", number, MADE) }, "Pick"));
    side.append(frame);
  });
  return side;
}
function framed(source, caption, alt) {
  return make("figure", {}, make("img", { src: source, alt, loading: "lazy" }), make("figcaption", {}, caption));
}
function ladder(row, more, chosen, decision) {
  const variant = row.variants[chosen];
  const side = make("div", { class: "side" });
  for (const one of more.variants[chosen].candidates) {
    const caption = `eta ${one.eta}: agreement ${one.margin}, stray colour ${one.stray}, colourfulness ${one.colorfulness}`;
    const frame = one.preview ? framed(one.preview, caption, `${row.id} at eta ${one.eta}`) : make("figure", {}, make("figcaption", {}, caption));
    const isMade = one.eta === variant.eta;
    const picked = decision && decision.decision !== "reject" && (decision.eta ? Number(decision.eta) === one.eta : isMade);
    frame.classList.toggle("chosen", Boolean(picked) || (!decision && isMade));
    frame.append(make("button", { type: "button", onclick: () => decide(row, isMade && !chosen ? "approve" : "pick", chosen, { eta: isMade ? "" : one.eta }) },
      isMade ? "Pick" : "Pick (made when the decisions are applied)"));
    side.append(frame);
  }
  return side;
}
function luminance(row, more, chosen) {
  const one = more.variants[chosen];
  const parts = [`${more.facts["luminance mismatches"]} of ${row.size} pixels differ from the scan, by ${facts.luma}`];
  if (row.variants[chosen].reduced !== null) {
    parts.push(`chroma was out of gamut and reduced in ${percent(row.variants[chosen].reduced)} of the pixels, which kept ${percent(one.kept)} of it on average`);
    parts.push(`${one.repaired} pixels repaired in integers`);
    if (one.lightness[0] !== null) parts.push(`CIELAB lightness, which is not what is kept, moved by ${one.lightness[0]} on average, ${one.lightness[1]} at most`);
  }
  if (one.access) parts.push(`the access copy is lossy: its luma is off by ${one.access_luma[0]} codes on average, ${one.access_luma[1]} at most`);
  if (one.note) parts.push(one.note);
  return make("p", {}, parts.join("; ") + ".");
}
function provenance(row, more, chosen) {
  const list = make("dl", { class: "facts" });
  const add = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    list.append(make("dt", {}, name), make("dd", {}, typeof value === "object" && !(value instanceof Node) ? JSON.stringify(value) : value));
  };
  const link = (text, place) => place && make("a", { href: place }, text);
  add("the picture", link(row.variants[chosen].image, row.variants[chosen].image));
  add("access copy", link(more.variants[chosen].access, more.variants[chosen].access));
  add("its whole record", link(more.variants[chosen].record, more.variants[chosen].record));
  add("sha256", row.variants[chosen].sha256);
  add("eta", String(row.variants[chosen].eta));
  add("seconds", String(row.seconds));
  for (const [name, value] of Object.entries(more.facts)) add(name, typeof value === "number" ? String(value) : value);
  return list;
}
function curves(losses) {
  const plots = make("div", { class: "plots" });
  for (const [stage, points] of Object.entries(losses)) {
    if (points.length < 2) continue;
    const steps = points.map((point) => point[0]), values = points.map((point) => point[1]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const x = (step) => 4 + (232 * (step - steps[0])) / Math.max(1, steps.at(-1) - steps[0]);
    const y = (value) => 86 - (78 * (value - low)) / Math.max(1e-9, high - low);
    const text = `${stage}: loss from ${values[0]} at step ${steps[0]} to ${values.at(-1)} at step ${steps.at(-1)}`;
    plots.append(make("figure", {}, drawn("svg", { viewBox: "0 0 240 90", role: "img", "aria-label": text },
      drawn("polyline", { points: points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" "), fill: "none", stroke: "#0b57d0", "stroke-width": 1.5 })),
    make("figcaption", {}, text)));
  }
  return plots.children.length ? plots : make("p", { class: "quiet" }, "none kept: an earlier fit was used");
}

// Overview -----------------------------------------------------------------------------------------------------------

function histogram(title, values, unit) {
  values = values.filter((value) => value !== null && value !== undefined && Number.isFinite(value)).sort((a, b) => a - b);
  if (!values.length) return null;
  const [low, high] = [values[0], values.at(-1)];
  const bins = Array(24).fill(0);
  for (const value of values) bins[Math.min(23, Math.floor((24 * (value - low)) / Math.max(1e-12, high - low)))] += 1;
  const top = Math.max(...bins);
  const short = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)) + unit;
  const median = values[Math.floor((values.length - 1) / 2)];
  const text = `${title}: median ${short(median)}, from ${short(low)} to ${short(high)}, ${values.length} values`;
  return make("figure", {}, drawn("svg", { viewBox: "0 0 240 80", role: "img", "aria-label": text }, ...bins.map((count, index) =>
    drawn("rect", { x: index * 10, y: 80 - (78 * count) / top, width: 9, height: (78 * count) / top, fill: "#4a6fa5" }))),
  make("figcaption", {}, text));
}
function overview() {
  const list = all(), counts = {};
  for (const row of list) counts[row.status] = (counts[row.status] || 0) + 1;
  const box = (number, name) => make("div", {}, make("b", {}, String(number)), name);
  const variants = list.flatMap((row) => row.variants);
  at("counts").replaceChildren(box(list.length + (facts.parts.length > 1 ? 0 : facts.pending), "rows"), ...["ok", "failed", "skipped"].map((name) => box(counts[name] || 0, name)),
    ...(facts.pending && facts.parts.length === 1 ? [box(facts.pending, "still to do")] : []), box(variants.length, "pictures"),
    box((list.reduce((sum, row) => sum + (row.seconds || 0), 0) / 3600).toFixed(2), "worker hours"));
  at("plots").replaceChildren(...[
    histogram("Seconds per row", list.filter((row) => row.status === "ok").map((row) => row.seconds), " s"),
    histogram("Colourfulness", variants.map((variant) => variant.colorfulness), ""),
    histogram("Agreement with the prompt (CLIP margin)", variants.map((variant) => variant.margin), ""),
    histogram("Pixels whose chroma was reduced", variants.map((variant) => variant.reduced === null ? null : 100 * variant.reduced), " %"),
  ].filter(Boolean));
  const bad = list.filter((row) => row.status !== "ok");
  at("failures").hidden = !bad.length;
  at("failures").firstElementChild.textContent = `${bad.length} rows without a picture, and why`;
  const kinds = new Map();
  for (const row of bad) kinds.set(row.kind, [...(kinds.get(row.kind) || []), row]);
  at("failures").lastElementChild.replaceChildren(make("table", {}, make("thead", {}, make("tr", {},
    ...["reason", "rows", "for example"].map((name) => make("th", { scope: "col" }, name)))),
  make("tbody", {}, ...[...kinds].map(([kind, some]) => make("tr", {}, make("td", {}, kind), make("td", {}, String(some.length)),
    make("td", {}, `${some[0].id}: ${some[0].message}`))))));
  const options = (id, names) => at(id).append(...[...new Set(names)].sort().map((name) => make("option", { value: name }, name)));
  options("status", list.map((row) => row.status));
  options("warning", list.flatMap((row) => row.warnings.map((one) => one.split(":")[0])));
}

// Keys ---------------------------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
  const focused = document.activeElement;
  if (focused.matches("textarea, select, canvas, input:not([type=range])")) return;
  const row = found[current];
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const moves = focused.matches("input[type=range]") ? {} : { ArrowRight: 1, ArrowLeft: -1 };
  if (key === "j" || moves[key] === 1) go(1);
  else if (key === "k" || moves[key] === -1) go(-1);
  else if (!row) return;
  else if (key === "a") { decide(row, shownVariant(row) ? "pick" : "approve"); go(1); }
  else if (key === "r") { decide(row, "reject"); go(1); }
  else if (key === "u") decide(row, null);
  else if (key === "Enter" && !focused.matches("button, a, summary") && !at("detail").open) look(row);
  else if (/^[1-9]$/.test(key) && row.variants[key - 1]) decide(row, key === "1" ? "approve" : "pick", key - 1, MADE);
  else return;
  event.preventDefault();
});

at("title").textContent = facts.output;
at("statement").textContent = facts.statement;
at("job").textContent = `${facts.software}, run ${facts.job.run}, manifest ${facts.job.manifest}, base model ${facts.job.base_model}, judge ${facts.job.judge}, preset ${facts.job.preset}`;
for (const id of ["search", "status", "warning", "decision", "order"]) at(id).addEventListener("input", search);
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("previous").addEventListener("click", () => { page -= 1; current = page * PAGE; show(); });
at("next").addEventListener("click", () => { page += 1; current = page * PAGE; show(); });
at("export").addEventListener("click", saveCsv);
at("help-button").addEventListener("click", () => at("help").showModal());
at("close").addEventListener("click", () => at("detail").close());
at("reviewer").addEventListener("change", (event) => { try { localStorage.setItem("diffcolor-batch reviewer", event.target.value); } catch { /* as above */ } });

if (facts.parts.length > 1) {
  at("parts").append(make("b", {}, "Rows "), ...facts.parts.flatMap(({ page: file, first, last }, number) => {
    const text = `${first.toLocaleString("en")} to ${last.toLocaleString("en")}`;
    const here = { "aria-current": number === facts.part ? "page" : null };
    const missing = { class: "quiet", title: `diffcolor-batch report OUT --part ${number + 1} writes this part` };
    return [file ? make("a", { href: file, ...here }, text) : make("span", missing, text), " · "];
  }).slice(0, -1), make("br"), make("span", { class: "quiet" }, "Figures, filters and decisions.csv are of the rows on this page."));
  at("parts").hidden = false;
}
at("color-names").append(...["neutral", ...Object.keys(facts.colors)].map((value) => make("option", { value })));

Promise.all(Array.from({ length: facts.chunks }, (_, number) => load("rows", facts.firstChunk + number))).then(() => { overview(); search(); },
  (error) => { at("page").textContent = `${error.message} is missing beside this page: copy the whole report folder`; });
