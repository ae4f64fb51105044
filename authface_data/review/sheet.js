"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const at = Object.fromEntries(data.columns.map((name, index) => [name, index]));
const KEY = `authface-review-${data.sheet}`;
const EDITABLE = ["reason", "note", "semantic_tags", "photographic_tags"];
const ZOOM_PX = 560;

const faces = data.faces;
const cards = [];
let said = {}; // face id -> the fields that a person filled in
let undone = []; // [id, its fields before]
let here = 0;
let show = "all";
let pointer = { x: 0.5, y: 0.5, clientX: 0, clientY: 0 };

const idOf = (face) => face.cells[at.id];
const fieldOf = (face, name) => (said[idOf(face)] || {})[name] ?? face.cells[at[name]];

// Keeping: in this browser, after every change.

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) || "{}");
    for (const face of faces) {
      const own = (kept.said || {})[idOf(face)];
      if (own && own.mark === face.mark) said[idOf(face)] = own.fields; // of another picture or other tags: out of date
    }
    $("reviewer").value = kept.reviewer || localStorage.getItem("authface-reviewer") || "";
    here = Math.max(faces.findIndex((face) => idOf(face) === kept.here), 0);
  } catch {
    $("saved").textContent = "this browser keeps nothing: save the table before you close";
  }
}

function keep() {
  try {
    // Another page of the same workspace may hold other faces: theirs stay.
    const all = JSON.parse(localStorage.getItem(KEY) || "{}").said || {};
    for (const face of faces) {
      const id = idOf(face);
      if (said[id] && Object.keys(said[id]).length) all[id] = { mark: face.mark, fields: said[id] };
      else delete all[id];
    }
    localStorage.setItem(KEY, JSON.stringify({ said: all, here: idOf(faces[here]), reviewer: $("reviewer").value }));
    localStorage.setItem("authface-reviewer", $("reviewer").value);
    $("saved").textContent = "kept in this browser";
  } catch {
    $("saved").textContent = "this browser keeps nothing: save the table before you close";
  }
}

function set(face, name, value) {
  const id = idOf(face);
  if (fieldOf(face, name) === value) return;
  undone.push([id, said[id] ? { ...said[id] } : undefined]);
  said[id] = { ...said[id], [name]: value };
  if (value === face.cells[at[name]]) delete said[id][name];
  paint(faces.indexOf(face));
  keep();
}

function undo() {
  const last = undone.pop();
  if (!last) return;
  const [id, before] = last;
  if (before) said[id] = before;
  else delete said[id];
  const index = faces.findIndex((face) => idOf(face) === id);
  paint(index);
  go(index);
  keep();
}

// The grid.

function build() {
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        const face = faces[entry.target.dataset.index];
        const [thumbnail, insets] = entry.target.querySelectorAll("img");
        thumbnail.src = face.thumbnail;
        insets.src = face.insets;
        seen.unobserve(entry.target);
      }
    },
    { root: $("grid"), rootMargin: "800px" },
  );
  const line = (text, kind) => Object.assign(document.createElement("div"), { className: `line ${kind || ""}`, textContent: text, title: text });
  faces.forEach((face, index) => {
    const card = Object.assign(document.createElement("div"), { className: "card" });
    card.dataset.index = index;
    card.setAttribute("role", "option");
    const thumbnail = Object.assign(document.createElement("img"), { width: 224, height: 224, alt: face.photo });
    const insets = Object.assign(document.createElement("img"), { width: 224, height: 112, alt: "eye and cheek, 1:1" });
    const mark = Object.assign(document.createElement("div"), { className: "mark" });
    const verdict = face.flag ? line(face.flag, "flag") : face.kept ? line("kept by every gate", "soft") : line(face.why, "dropped");
    card.append(mark, thumbnail, insets, line(face.photo), verdict);
    card.addEventListener("click", () => go(index));
    cards.push(card);
    seen.observe(card);
  });
  $("grid").append(...cards);
  faces.forEach((_, index) => paint(index));
}

function paint(index) {
  const face = faces[index];
  cards[index].dataset.decision = fieldOf(face, "decision");
  const rating = fieldOf(face, "rating");
  cards[index].querySelector(".line").textContent = `${rating ? `★${rating} ` : ""}${face.photo}`;
  if (index === here) panel();
  progress();
}

function progress() {
  const count = (word) => faces.filter((face) => fieldOf(face, "decision") === word).length;
  const [kept, dropped, unsure] = data.words.map(count);
  $("progress").textContent = `${kept} keep · ${dropped} drop · ${unsure} unsure · ${faces.length - kept - dropped - unsure} to go`;
}

function visible(face) {
  if (show === "undecided") return !fieldOf(face, "decision");
  if (show === "flagged") return Boolean(face.flag);
  if (show === "kept" || show === "dropped") return face.kept === (show === "kept");
  return true;
}

function filter(which) {
  show = which;
  for (const button of $("filters").children) button.setAttribute("aria-pressed", String(button.dataset.show === which));
  faces.forEach((face, index) => (cards[index].hidden = !visible(face)));
  if (cards[here].hidden) step(1);
}

// Moving.

function go(index) {
  if (index < 0 || index >= faces.length) return;
  cards[here].setAttribute("aria-selected", "false");
  here = index;
  cards[here].setAttribute("aria-selected", "true");
  cards[here].scrollIntoView({ block: "nearest" });
  panel();
  keep();
}

function step(by) {
  for (let index = here + by; index >= 0 && index < faces.length; index += by) {
    if (!cards[index].hidden) return go(index);
  }
}

function stepRow(by) {
  const shown = cards.filter((card) => !card.hidden);
  const columns = shown.filter((card) => card.offsetTop === shown[0].offsetTop).length;
  const target = shown[shown.indexOf(cards[here]) + by * columns];
  if (target) go(Number(target.dataset.index));
}

function nextUndecided() {
  for (let off = 1; off <= faces.length; off += 1) {
    const index = (here + off) % faces.length;
    if (!cards[index].hidden && !fieldOf(faces[index], "decision")) return go(index);
  }
}

// The face in hand.

const urls = new Map();
function cropUrl(face) {
  const id = idOf(face);
  if (!urls.has(id)) {
    const bytes = Uint8Array.from(atob($(`crop-${id}`).textContent), (letter) => letter.charCodeAt(0));
    urls.set(id, URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })));
    if (urls.size > 40) {
      const [oldest, url] = urls.entries().next().value;
      URL.revokeObjectURL(url);
      urls.delete(oldest);
    }
  }
  return urls.get(id);
}

function panel() {
  const face = faces[here];
  $("large").src = cropUrl(face);
  $("name").textContent = `${idOf(face)} · ${face.photo}${face.credit ? ` · ${face.credit}` : ""}`;
  for (const button of $("decide").children) button.setAttribute("aria-pressed", String(fieldOf(face, "decision") === button.dataset.word));
  const rating = fieldOf(face, "rating");
  $("rating").textContent = rating ? `rated ${rating} of 5` : "not rated (1 to 5)";
  for (const name of EDITABLE) if (document.activeElement !== $(name)) $(name).value = fieldOf(face, name);
  const why = [face.flag, face.why && `dropped by gates: ${face.why}`, face.decided && `before: ${face.decided}`].filter(Boolean);
  $("why").textContent = why.join(" · ") || "kept by every gate";
  $("scores").replaceChildren();
  for (const [metric, value] of Object.entries(face.scores)) {
    $("scores").append(
      Object.assign(document.createElement("dt"), { textContent: metric }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
  }
}

function decide(word) {
  const face = faces[here];
  set(face, "decision", fieldOf(face, "decision") === word ? "" : word);
  if (fieldOf(face, "decision")) step(1);
}

function zoom(on) {
  $("zoom").hidden = !on;
  if (!on) return;
  const face = faces[here];
  const image = $("zoom").firstElementChild;
  const ratio = window.devicePixelRatio || 1; // one pixel of the crop on one of the screen
  const size = face.size / ratio;
  image.src = cropUrl(face);
  image.style.width = image.style.height = `${size}px`;
  const side = Math.min(ZOOM_PX, size);
  const left = Math.min(Math.max(pointer.clientX - side / 2, 0), innerWidth - side);
  const top = Math.min(Math.max(pointer.clientY - side / 2, 0), innerHeight - side);
  Object.assign($("zoom").style, { left: `${left}px`, top: `${top}px`, width: `${side}px`, height: `${side}px` });
  image.style.left = `${Math.min(Math.max(side / 2 - pointer.x * size, side - size), 0)}px`;
  image.style.top = `${Math.min(Math.max(side / 2 - pointer.y * size, side - size), 0)}px`;
}

document.addEventListener("mousemove", (event) => {
  const card = event.target.closest?.(".card");
  const picture = event.target.id === "large" ? event.target : card?.querySelector("img");
  if (!picture) return;
  const box = picture.getBoundingClientRect();
  const inside = (value) => Math.min(Math.max(value, 0), 1);
  pointer = { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height), clientX: event.clientX, clientY: event.clientY };
  if (!$("zoom").hidden) {
    if (card && Number(card.dataset.index) !== here) go(Number(card.dataset.index));
    zoom(true);
  }
});

// The table.

const harmless = (cell) => cell.replace(/(^|[;\t\r\n])([ \t\r\n]*)(?=[=+\-@'＝＋－＠])/g, "$1$2'"); // as in table.py
const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

function table() {
  const text = at.crop + 1; // the metrics after it are numbers, and stay so
  const rows = faces.map((face) => {
    const cells = [...face.cells];
    const own = said[idOf(face)] || {};
    for (const name of data.said) if (own[name] !== undefined) cells[at[name]] = own[name];
    if (Object.keys(own).length) cells[at.reviewer] = $("reviewer").value.trim();
    return cells.map((cell, index) => quoted(index < text ? harmless(cell) : cell)).join(",");
  });
  return `\uFEFF${[data.columns.map(quoted).join(","), ...rows].join("\r\n")}\r\n`;
}

function save() {
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(new Blob([table()], { type: "text/csv" })),
    download: `review-${$("reviewer").value.trim().replace(/\W+/g, "-") || "table"}.csv`,
  });
  link.click();
  $("saved").textContent = "table saved";
}

// Keys.

const keys = {
  p: () => decide("keep"), x: () => decide("drop"), u: () => decide("unsure"),
  n: nextUndecided, s: save, t: () => $("semantic_tags").focus(), z: () => zoom(true),
  "?": () => $("help").showModal(), Backspace: undo,
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => stepRow(-1), ArrowDown: () => stepRow(1),
};

document.addEventListener("keydown", (event) => {
  if ($("help").open) return;
  if (event.target.matches("input, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && key === "z") {
    event.preventDefault();
    return undo();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const rate = /^[1-5]$/.test(key) && (() => set(faces[here], "rating", fieldOf(faces[here], "rating") === key ? "" : key));
  const action = rate || keys[key];
  if (action) {
    event.preventDefault();
    action();
  }
});
document.addEventListener("keyup", (event) => event.key.toLowerCase() === "z" && zoom(false));
window.addEventListener("blur", () => zoom(false));

for (const name of EDITABLE) $(name).addEventListener("change", () => set(faces[here], name, $(name).value.trim()));
for (const button of $("decide").children) button.addEventListener("click", () => decide(button.dataset.word));
for (const button of $("filters").children) button.addEventListener("click", () => filter(button.dataset.show));
$("reviewer").addEventListener("change", keep);
$("save").addEventListener("click", save);
$("help-button").addEventListener("click", () => $("help").showModal());

restore();
build();
go(here);
