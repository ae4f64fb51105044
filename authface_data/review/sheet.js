"use strict";
// The review page. sheet.py embeds its data as JSON. A second script decides where answers are
// stored: review/file_storage.js in the browser, serve/server_storage.js in the workspace.

const page = JSON.parse(document.getElementById("data").textContent);
const faces = page.faces;
const columnIndex = Object.fromEntries(page.columns.map((name, index) => [name, index]));
const EDITABLE_FIELDS = ["reason", "note", "semantic_tags", "photographic_tags"];
const DECISION_MARKS = { keep: "✓ keep", drop: "✕ drop", unsure: "? unsure" };
const ZOOM_SIDE_PX = 560;
const MAX_CACHED_URLS = 40;
const MIN_SWIPE_PX = 40;
const REVIEWER_KEY = "authface-reviewer";

const cards = []; // one element of the gallery per face, in the same order
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
const reviewerName = () => $("reviewer").value.trim().replace(/\s+/g, " ");

function showStatus(text, isProblem = false) {
  $("saved").textContent = text;
  $("saved").title = text;
  $("saved").classList.toggle("problem", isProblem);
}

// Answers.

function setField(face, name, value) {
  const id = idOf(face);
  if (fieldOf(face, name) === value) return;
  undoStack.push([id, answers[id] ? { ...answers[id] } : undefined]);
  answers[id] = { ...answers[id], [name]: value };
  if (value === exportedField(face, name)) delete answers[id][name];
  storeAnswers(face);
  updateCard(faces.indexOf(face));
}

function undo() {
  const last = undoStack.pop();
  if (!last) return;
  const [id, before] = last;
  if (before) answers[id] = before;
  else delete answers[id];
  const index = faces.findIndex((face) => idOf(face) === id);
  storeAnswers(faces[index]);
  updateCard(index);
  select(index);
}

function decide(decision) {
  const face = faces[current];
  // The same key again removes the decision.
  setField(face, "decision", fieldOf(face, "decision") === decision ? "" : decision);
  if (fieldOf(face, "decision") === decision) selectNext(1);
}

function rate(rating) {
  const face = faces[current];
  setField(face, "rating", fieldOf(face, "rating") === rating ? "" : rating);
}

// The reviewer's name is requested when answers are saved for the first time.

function withReviewer(action) {
  if (reviewerName()) return action();
  const dialog = $("reviewer-dialog");
  if (dialog.open) return;
  dialog.returnValue = "cancel";
  dialog.onclose = () => {
    if (dialog.returnValue !== "save" || !reviewerName()) return;
    showReviewer();
    action();
  };
  dialog.showModal();
}

function showReviewer() {
  $("reviewer-button").textContent = reviewerName();
  $("reviewer-button").hidden = !reviewerName();
  try {
    localStorage.setItem(REVIEWER_KEY, reviewerName());
  } catch {
    // The name is requested again next time.
  }
}

function storedReviewer() {
  try {
    return localStorage.getItem(REVIEWER_KEY) || "";
  } catch {
    return "";
  }
}

// The gallery.

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
    const [thumbnail, eye, cheek] = entry.target.querySelectorAll("img");
    thumbnail.src = face.thumbnail;
    eye.src = face.eye;
    cheek.src = face.cheek;
    observer.unobserve(entry.target);
  }
}

function createCard(face, index) {
  const card = createElement("div", { className: "tile", id: `tile-${index}` });
  card.dataset.index = index;
  card.setAttribute("role", "option");
  const details = createElement("div", { className: "details" });
  details.append(createElement("img", { alt: "" }), createElement("img", { alt: "" }));
  card.append(
    createElement("img", { className: "face", width: 224, height: 224, alt: "" }),
    details,
    createElement("div", { className: "line title" }),
    createVerdictLine(face),
    createElement("span", { className: "mark" }),
  );
  card.addEventListener("click", () => select(index));
  return card;
}

function createVerdictLine(face) {
  const [text, kind] = verdictOf(face);
  const title = face.isKept ? text : `${text}\n${face.dropRules}`;
  return createElement("div", { className: `line why ${kind}`, textContent: text, title });
}

function verdictOf(face) {
  if (face.flag) return [face.flag, "unsure"];
  if (face.isKept) return ["kept by every gate", "muted"];
  return [face.dropReasons, "drop"];
}

function updateCard(index) {
  const face = faces[index];
  const card = cards[index];
  const decision = fieldOf(face, "decision");
  card.dataset.decision = decision;
  card.querySelector(".mark").textContent = DECISION_MARKS[decision] || "";
  const rating = fieldOf(face, "rating");
  const title = `${rating ? `★${rating} ` : ""}${face.photoTitle}`;
  Object.assign(card.querySelector(".title"), { textContent: title, title });
  const label = [title, decision || "undecided", verdictOf(face)[0]].join(", ");
  card.setAttribute("aria-label", label);
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
  const first = cards.findIndex((card) => !card.hidden);
  if (cards[current].hidden && first >= 0) select(first);
}

// Selection.

function select(index) {
  if (index < 0 || index >= faces.length) return;
  cards[current].setAttribute("aria-selected", "false");
  current = index;
  cards[current].setAttribute("aria-selected", "true");
  cards[current].scrollIntoView({ block: "nearest", inline: "nearest" });
  $("grid").setAttribute("aria-activedescendant", cards[current].id);
  updatePanel();
  storePosition();
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
  if (face.crop) return face.crop;
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
  $("large").alt = face.photoTitle;
  $("name").textContent = [face.photoTitle, face.credit, idOf(face)].filter(Boolean).join(" · ");
  markPressed($("decide"), "decision", fieldOf(face, "decision"));
  markPressed($("rating"), "rating", fieldOf(face, "rating"));
  for (const name of EDITABLE_FIELDS) {
    if (document.activeElement !== $(name)) $(name).value = fieldOf(face, name);
  }

  const why = createElement("ul", {});
  const addReason = (text, className, title = "") =>
    why.append(createElement("li", { textContent: text, className, title }));
  if (face.flag) addReason(`check by eye: ${face.flag}`, "unsure");
  if (face.isKept) addReason("kept by every gate", "muted");
  const rules = face.dropRules.split("; ");
  if (!face.isKept) {
    face.dropReasons.split("; ").forEach((text, index) => addReason(text, "drop", rules[index]));
  }
  if (face.lastDecision) addReason(`decided before: ${face.lastDecision}`, "muted");
  $("why").replaceChildren(why);

  const scores = Object.entries(face.scores).flatMap(([name, [noun, value]]) => [
    createElement("dt", { textContent: noun, title: name }),
    createElement("dd", { textContent: value }),
  ]);
  $("scores").replaceChildren(...scores);
}

function markPressed(group, name, value) {
  for (const button of group.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset[name] === value));
  }
}

// Zoom: one pixel of the crop is one pixel of the screen.

function showZoom(isVisible, isPinned = false) {
  $("zoom").hidden = !isVisible;
  $("zoom").classList.toggle("pinned", isVisible && isPinned);
  if (!isVisible) return;
  const face = faces[current];
  const size = face.cropSizePx / (window.devicePixelRatio || 1);
  const side = Math.min(ZOOM_SIDE_PX, size, innerWidth, innerHeight);
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

function movePointer(picture, event) {
  const box = picture.getBoundingClientRect();
  pointer = {
    x: clamp((event.clientX - box.left) / box.width, 0, 1),
    y: clamp((event.clientY - box.top) / box.height, 0, 1),
    clientX: event.clientX,
    clientY: event.clientY,
  };
}

document.addEventListener("mousemove", (event) => {
  if ($("zoom").classList.contains("pinned")) return;
  const card = event.target.closest?.(".tile");
  const picture = event.target.id === "large" ? event.target : card?.querySelector("img");
  if (!picture) return;
  movePointer(picture, event);
  if (!$("zoom").hidden) {
    if (card && Number(card.dataset.index) !== current) select(Number(card.dataset.index));
    showZoom(true);
  }
});

// Touch: a swipe over the large picture selects the next or the previous face, a tap opens the
// zoom, and a drag moves the part that the zoom shows.

let pressedAt = null; // where a finger or the mouse button went down

$("large").addEventListener("pointerdown", (event) => {
  pressedAt = { x: event.clientX, y: event.clientY };
});
$("large").addEventListener("pointerup", (event) => {
  if (!pressedAt) return;
  const dx = event.clientX - pressedAt.x;
  const dy = event.clientY - pressedAt.y;
  pressedAt = null;
  if (Math.abs(dx) >= MIN_SWIPE_PX && Math.abs(dx) > Math.abs(dy)) return selectNext(-Math.sign(dx));
  if (Math.hypot(dx, dy) > 10) return;
  movePointer($("large"), event);
  showZoom(true, true);
});
$("large").addEventListener("pointercancel", () => (pressedAt = null));

let hasDragged = false;
$("zoom").addEventListener("pointerdown", (event) => {
  $("zoom").setPointerCapture(event.pointerId);
  pressedAt = { x: event.clientX, y: event.clientY };
  hasDragged = false;
});
$("zoom").addEventListener("pointermove", (event) => {
  if (!pressedAt) return;
  const size = $("zoom").firstElementChild.offsetWidth;
  const dx = event.clientX - pressedAt.x;
  const dy = event.clientY - pressedAt.y;
  if (!hasDragged && Math.hypot(dx, dy) < 10) return;
  hasDragged = true;
  pressedAt = { x: event.clientX, y: event.clientY };
  pointer.x = clamp(pointer.x - dx / size, 0, 1);
  pointer.y = clamp(pointer.y - dy / size, 0, 1);
  showZoom(true, true);
});
$("zoom").addEventListener("pointerup", () => {
  pressedAt = null;
  if (!hasDragged) showZoom(false);
});

// The table.

// As in table.py.
const FORMULA = /(^|[;\t\r\n])([ \t\r\n]*)(?=[=+\-@'＝＋－＠])/g;
const escapeFormulas = (cell) => cell.replace(FORMULA, "$1$2'");
const quote = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

function tableText(rowsOf = faces) {
  const textColumns = columnIndex.crop + 1; // the columns after it are scores, which stay numbers
  const rows = rowsOf.map((face) => {
    const cells = [...face.cells];
    const fields = answers[idOf(face)] || {};
    for (const name of page.answerColumns) {
      if (fields[name] !== undefined) cells[columnIndex[name]] = fields[name];
    }
    if (Object.keys(fields).length) cells[columnIndex.reviewer] = reviewerName();
    return cells
      .map((cell, index) => quote(index < textColumns ? escapeFormulas(cell) : cell))
      .join(",");
  });
  const lines = [page.columns.map(quote).join(","), ...rows];
  return `\uFEFF${lines.join("\r\n")}\r\n`;
}

// Keyboard and buttons.

const KEY_ACTIONS = {
  p: () => decide("keep"),
  x: () => decide("drop"),
  u: () => decide("unsure"),
  n: selectNextUndecided,
  s: () => saveTable(),
  t: () => $("semantic_tags").focus(),
  z: () => showZoom(true),
  "?": () => $("help").showModal(),
  Backspace: undo,
  Escape: () => showZoom(false),
  ArrowLeft: () => selectNext(-1),
  ArrowRight: () => selectNext(1),
  ArrowUp: () => selectRow(-1),
  ArrowDown: () => selectRow(1),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
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
for (const button of $("decide").querySelectorAll("button")) {
  button.addEventListener("click", () => decide(button.dataset.decision));
}
for (const button of $("rating").querySelectorAll("button")) {
  button.addEventListener("click", () => rate(button.dataset.rating));
}
for (const button of $("filters").children) {
  button.addEventListener("click", () => showFaces(button.dataset.show));
}
$("previous").addEventListener("click", () => selectNext(-1));
$("next").addEventListener("click", () => selectNext(1));
$("help-button").addEventListener("click", () => $("help").showModal());
$("reviewer-button").addEventListener("click", () => {
  $("reviewer-dialog").returnValue = "cancel";
  const before = $("reviewer").value;
  $("reviewer-dialog").onclose = () => {
    if ($("reviewer-dialog").returnValue !== "save") $("reviewer").value = before;
    showReviewer();
    changeReviewer();
  };
  $("reviewer-dialog").showModal();
});

async function start() {
  $("reviewer").value = storedReviewer();
  await loadAnswers();
  showReviewer();
  buildGrid();
  select(current);
}
