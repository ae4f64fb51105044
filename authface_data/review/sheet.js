"use strict";
// The review page. sheet.py embeds its data as JSON and the crops as data URIs.

const page = JSON.parse(document.getElementById("data").textContent);
const faces = page.faces;
const columnIndex = Object.fromEntries(page.columns.map((name, index) => [name, index]));
const EDITABLE_FIELDS = ["reason", "note", "semantic_tags", "photographic_tags"];
const ZOOM_SIDE_PX = 560;
const MAX_CACHED_URLS = 40;

const cards = []; // one element of the grid per face, in the same order
let answers = {}; // face id -> the fields that the reviewer changed
let undoStack = []; // [face id, its answers before a change]
let current = 0; // index of the selected face
let shownFaces = "all";
let pointer = { x: 0.5, y: 0.5, clientX: 0, clientY: 0 }; // x and y: position in a picture, 0 to 1

const $ = (id) => document.getElementById(id);
const idOf = (face) => face.cells[columnIndex.id];
const exportedField = (face, name) => face.cells[columnIndex[name]];
const fieldOf = (face, name) => (answers[idOf(face)] || {})[name] ?? exportedField(face, name);
const createElement = (tag, properties) => Object.assign(document.createElement(tag), properties);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Storage: the browser stores the answers after every change. The keys `said` and `mark` are also
// those of older pages, whose stored answers stay valid.

const STORAGE_KEY = `authface-review-${page.workspaceId}`;
const REVIEWER_KEY = "authface-reviewer";
const CANNOT_STORE = "this browser stores nothing: save the table before you close the page";

function loadAnswers() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE_KEY) || "{}");
    for (const face of faces) {
      const entry = (stored.said || {})[idOf(face)];
      // Answers about another crop or other tags are out of date.
      if (entry && entry.mark === face.contentId) answers[idOf(face)] = entry.fields;
    }
    $("reviewer").value = stored.reviewer || localStorage.getItem(REVIEWER_KEY) || "";
    current = Math.max(faces.findIndex((face) => idOf(face) === stored.here), 0);
  } catch {
    $("saved").textContent = CANNOT_STORE;
  }
}

function storeAnswers() {
  try {
    // Another page of the same workspace may show other faces: their answers must stay.
    const all = JSON.parse(localStorage.getItem(STORAGE_KEY) || "{}").said || {};
    for (const face of faces) {
      const id = idOf(face);
      const hasAnswers = answers[id] && Object.keys(answers[id]).length;
      if (hasAnswers) all[id] = { mark: face.contentId, fields: answers[id] };
      else delete all[id];
    }
    const reviewer = $("reviewer").value;
    const stored = { said: all, here: idOf(faces[current]), reviewer };
    localStorage.setItem(STORAGE_KEY, JSON.stringify(stored));
    localStorage.setItem(REVIEWER_KEY, reviewer);
    $("saved").textContent = "stored in this browser";
  } catch {
    $("saved").textContent = CANNOT_STORE;
  }
}

// Answers.

function setField(face, name, value) {
  const id = idOf(face);
  if (fieldOf(face, name) === value) return;
  undoStack.push([id, answers[id] ? { ...answers[id] } : undefined]);
  answers[id] = { ...answers[id], [name]: value };
  if (value === exportedField(face, name)) delete answers[id][name];
  updateCard(faces.indexOf(face));
  storeAnswers();
}

function undo() {
  const last = undoStack.pop();
  if (!last) return;
  const [id, before] = last;
  if (before) answers[id] = before;
  else delete answers[id];
  const index = faces.findIndex((face) => idOf(face) === id);
  updateCard(index);
  select(index);
  storeAnswers();
}

function decide(decision) {
  const face = faces[current];
  // The same key again removes the decision.
  setField(face, "decision", fieldOf(face, "decision") === decision ? "" : decision);
  if (fieldOf(face, "decision")) selectNext(1);
}

function rate(rating) {
  const face = faces[current];
  setField(face, "rating", fieldOf(face, "rating") === rating ? "" : rating);
}

// The grid.

function buildGrid() {
  // Pictures are decoded only when their card comes near the visible part.
  const observer = new IntersectionObserver(loadPictures, {
    root: $("grid"),
    rootMargin: "800px",
  });
  faces.forEach((face, index) => {
    const card = createCard(face, index);
    cards.push(card);
    observer.observe(card);
  });
  $("grid").append(...cards);
  faces.forEach((_, index) => updateCard(index));
}

function loadPictures(entries, observer) {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    const face = faces[entry.target.dataset.index];
    const [thumbnail, insets] = entry.target.querySelectorAll("img");
    thumbnail.src = face.thumbnail;
    insets.src = face.insets;
    observer.unobserve(entry.target);
  }
}

function createCard(face, index) {
  const card = createElement("div", { className: "card" });
  card.dataset.index = index;
  card.setAttribute("role", "option");
  card.append(
    createElement("div", { className: "decision-bar" }),
    createElement("img", { width: 224, height: 224, alt: face.photoTitle }),
    createElement("img", { width: 224, height: 112, alt: "eye and cheek at 1:1" }),
    createLine(face.photoTitle, ""),
    createVerdictLine(face),
  );
  card.addEventListener("click", () => select(index));
  return card;
}

function createLine(text, className) {
  return createElement("div", { className: `line ${className}`, textContent: text, title: text });
}

function createVerdictLine(face) {
  if (face.flag) return createLine(face.flag, "flag");
  if (face.isKept) return createLine("kept by every gate", "soft");
  return createLine(face.dropReasons, "dropped");
}

function updateCard(index) {
  const face = faces[index];
  cards[index].dataset.decision = fieldOf(face, "decision");
  const rating = fieldOf(face, "rating");
  const stars = rating ? `★${rating} ` : "";
  cards[index].querySelector(".line").textContent = `${stars}${face.photoTitle}`;
  if (index === current) updatePanel();
  updateProgress();
}

function updateProgress() {
  const count = (decision) =>
    faces.filter((face) => fieldOf(face, "decision") === decision).length;
  const [keep, drop, unsure] = page.decisions.map(count);
  const undecided = faces.length - keep - drop - unsure;
  $("progress").textContent =
    `${keep} keep · ${drop} drop · ${unsure} unsure · ${undecided} undecided`;
}

function isShown(face) {
  if (shownFaces === "undecided") return !fieldOf(face, "decision");
  if (shownFaces === "flagged") return Boolean(face.flag);
  if (shownFaces === "kept") return face.isKept;
  if (shownFaces === "dropped") return !face.isKept;
  return true;
}

function showFaces(choice) {
  shownFaces = choice;
  for (const button of $("filters").children) {
    button.setAttribute("aria-pressed", String(button.dataset.show === choice));
  }
  faces.forEach((face, index) => (cards[index].hidden = !isShown(face)));
  if (cards[current].hidden) selectNext(1);
}

// Selection.

function select(index) {
  if (index < 0 || index >= faces.length) return;
  cards[current].setAttribute("aria-selected", "false");
  current = index;
  cards[current].setAttribute("aria-selected", "true");
  cards[current].scrollIntoView({ block: "nearest" });
  updatePanel();
  storeAnswers();
}

function selectNext(step) {
  for (let index = current + step; index >= 0 && index < faces.length; index += step) {
    if (!cards[index].hidden) return select(index);
  }
}

function selectRow(step) {
  const shown = cards.filter((card) => !card.hidden);
  const columns = shown.filter((card) => card.offsetTop === shown[0].offsetTop).length;
  const target = shown[shown.indexOf(cards[current]) + step * columns];
  if (target) select(Number(target.dataset.index));
}

function selectNextUndecided() {
  for (let offset = 1; offset <= faces.length; offset += 1) {
    const index = (current + offset) % faces.length;
    if (!cards[index].hidden && !fieldOf(faces[index], "decision")) return select(index);
  }
}

// The panel of the selected face.

const cropUrls = new Map(); // face id -> object URL, the oldest first

function cropUrl(face) {
  const id = idOf(face);
  if (!cropUrls.has(id)) {
    const [, base64] = $(`crop-${id}`).textContent.split(",");
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    cropUrls.set(id, URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })));
    if (cropUrls.size > MAX_CACHED_URLS) {
      const [oldestId, url] = cropUrls.entries().next().value;
      URL.revokeObjectURL(url);
      cropUrls.delete(oldestId);
    }
  }
  return cropUrls.get(id);
}

function updatePanel() {
  const face = faces[current];
  $("large").src = cropUrl(face);
  $("name").textContent = [idOf(face), face.photoTitle, face.credit].filter(Boolean).join(" · ");
  for (const button of $("decide").children) {
    const isPressed = fieldOf(face, "decision") === button.dataset.decision;
    button.setAttribute("aria-pressed", String(isPressed));
  }
  const rating = fieldOf(face, "rating");
  $("rating").textContent = rating ? `rated ${rating} of 5` : "not rated (keys 1 to 5)";
  for (const name of EDITABLE_FIELDS) {
    if (document.activeElement !== $(name)) $(name).value = fieldOf(face, name);
  }
  const notes = [
    face.flag,
    face.dropReasons && `dropped by gates: ${face.dropReasons}`,
    face.lastDecision && `earlier decision: ${face.lastDecision}`,
  ];
  $("why").textContent = notes.filter(Boolean).join(" · ") || "kept by every gate";
  $("scores").replaceChildren();
  for (const [metric, score] of Object.entries(face.scores)) {
    $("scores").append(
      createElement("dt", { textContent: metric }),
      createElement("dd", { textContent: score }),
    );
  }
}

// Zoom: one pixel of the crop is one pixel of the screen.

function showZoom(isVisible) {
  $("zoom").hidden = !isVisible;
  if (!isVisible) return;
  const face = faces[current];
  const size = face.cropSizePx / (window.devicePixelRatio || 1);
  const side = Math.min(ZOOM_SIDE_PX, size);
  const left = clamp(pointer.clientX - side / 2, 0, innerWidth - side);
  const top = clamp(pointer.clientY - side / 2, 0, innerHeight - side);
  Object.assign($("zoom").style, {
    left: `${left}px`,
    top: `${top}px`,
    width: `${side}px`,
    height: `${side}px`,
  });

  const image = $("zoom").firstElementChild;
  image.src = cropUrl(face);
  Object.assign(image.style, {
    width: `${size}px`,
    height: `${size}px`,
    left: `${clamp(side / 2 - pointer.x * size, side - size, 0)}px`,
    top: `${clamp(side / 2 - pointer.y * size, side - size, 0)}px`,
  });
}

document.addEventListener("mousemove", (event) => {
  const card = event.target.closest?.(".card");
  const picture = event.target.id === "large" ? event.target : card?.querySelector("img");
  if (!picture) return;
  const box = picture.getBoundingClientRect();
  pointer = {
    x: clamp((event.clientX - box.left) / box.width, 0, 1),
    y: clamp((event.clientY - box.top) / box.height, 0, 1),
    clientX: event.clientX,
    clientY: event.clientY,
  };
  if (!$("zoom").hidden) {
    if (card && Number(card.dataset.index) !== current) select(Number(card.dataset.index));
    showZoom(true);
  }
});

// The table.

// As in table.py.
const FORMULA = /(^|[;\t\r\n])([ \t\r\n]*)(?=[=+\-@'＝＋－＠])/g;
const escapeFormulas = (cell) => cell.replace(FORMULA, "$1$2'");
const quote = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

function tableText() {
  const textColumns = columnIndex.crop + 1; // the columns after it are scores, which stay numbers
  const rows = faces.map((face) => {
    const cells = [...face.cells];
    const fields = answers[idOf(face)] || {};
    for (const name of page.answerColumns) {
      if (fields[name] !== undefined) cells[columnIndex[name]] = fields[name];
    }
    if (Object.keys(fields).length) cells[columnIndex.reviewer] = $("reviewer").value.trim();
    return cells
      .map((cell, index) => quote(index < textColumns ? escapeFormulas(cell) : cell))
      .join(",");
  });
  const lines = [page.columns.map(quote).join(","), ...rows];
  return `\uFEFF${lines.join("\r\n")}\r\n`;
}

function saveTable() {
  const reviewer = $("reviewer").value.trim().replace(/\W+/g, "-") || "table";
  const link = createElement("a", {
    href: URL.createObjectURL(new Blob([tableText()], { type: "text/csv" })),
    download: `review-${reviewer}.csv`,
  });
  link.click();
  $("saved").textContent = "table saved";
}

// Keyboard and buttons.

const KEY_ACTIONS = {
  p: () => decide("keep"),
  x: () => decide("drop"),
  u: () => decide("unsure"),
  n: selectNextUndecided,
  s: saveTable,
  t: () => $("semantic_tags").focus(),
  z: () => showZoom(true),
  "?": () => $("help").showModal(),
  Backspace: undo,
  ArrowLeft: () => selectNext(-1),
  ArrowRight: () => selectNext(1),
  ArrowUp: () => selectRow(-1),
  ArrowDown: () => selectRow(1),
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
  const action = /^[1-5]$/.test(key) ? () => rate(key) : KEY_ACTIONS[key];
  if (action) {
    event.preventDefault();
    action();
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "z") showZoom(false);
});
window.addEventListener("blur", () => showZoom(false));

for (const name of EDITABLE_FIELDS) {
  $(name).addEventListener("change", () => setField(faces[current], name, $(name).value.trim()));
}
for (const button of $("decide").children) {
  button.addEventListener("click", () => decide(button.dataset.decision));
}
for (const button of $("filters").children) {
  button.addEventListener("click", () => showFaces(button.dataset.show));
}
$("reviewer").addEventListener("change", storeAnswers);
$("save").addEventListener("click", saveTable);
$("help-button").addEventListener("click", () => $("help").showModal());

loadAnswers();
buildGrid();
select(current);
