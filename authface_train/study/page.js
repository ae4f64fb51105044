"use strict";
const study = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const STORAGE_KEY = `authface-study-${study.study}`;
const COLUMNS = ["study", "rater", "pair", "a", "b", "left", "answer", "answered_at"];
const STORED = "Your answers are stored in this browser.";
const NOT_STORED = "This browser stores nothing: save your answers before you close the page.";

let answers = {}; // name of the pair -> [answer, time]
let position = 0; // index of the pair that is shown; the number of pairs at the end

function loadAnswers() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE_KEY) || "{}");
    answers = stored.answers || {};
    element("rater").value = stored.rater || "";
  } catch {
    element("storage").textContent = NOT_STORED;
  }
  const firstOpen = study.pairs.findIndex((pair) => !answers[pair.name]);
  position = firstOpen < 0 ? study.pairs.length : firstOpen;
}

function storeAnswers() {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify({ answers, rater: element("rater").value }));
    element("storage").textContent = STORED;
  } catch {
    element("storage").textContent = NOT_STORED;
  }
}

// Method whose picture is on a side: "a" or "b".
function methodAt(pair, side) {
  const isLeft = side === "left";
  return isLeft === (pair.left === "a") ? "a" : "b";
}

function render() {
  const total = study.pairs.length;
  const answered = Object.keys(answers).length;
  const isDone = position >= total;
  element("restart").hidden = answered === 0;
  element("bar").style.width = `${(100 * answered) / total}%`;
  element("progress").setAttribute("aria-valuemax", total);
  element("progress").setAttribute("aria-valuenow", answered);
  element("question").hidden = isDone;
  element("done").hidden = !isDone;
  if (isDone) return;

  showZoom(false);
  element("back").disabled = position === 0;
  const pair = study.pairs[position];
  element("left").src = pair.pictures[0];
  element("right").src = pair.pictures[1];
  element("degraded").hidden = !pair.degraded;
  if (pair.degraded) element("degraded").src = pair.degraded;
  element("position").textContent = `Pair ${position + 1} of ${total}`;

  const chosen = answers[pair.name] ? answers[pair.name][0] : "";
  for (const side of ["left", "right"]) {
    element(`answer-${side}`).classList.toggle("chosen", chosen === methodAt(pair, side));
  }
  element("answer-equal").classList.toggle("chosen", chosen === "equal");
}

// choice: "left", "equal" or "right".
function answer(choice) {
  if (position >= study.pairs.length) return;
  const pair = study.pairs[position];
  const chosen = choice === "equal" ? "equal" : methodAt(pair, choice);
  answers[pair.name] = [chosen, new Date().toISOString()];
  position += 1;
  storeAnswers();
  render();
}

function goBack() {
  position = Math.max(position - 1, 0);
  render();
}

// Zoom: both pictures show the same part, so that details can be compared.

const MIN_ZOOM = 2;
let isZoomed = false;
let centre = { x: 0.5, y: 0.5 }; // the part that is shown, as shares of the picture

function showZoom(visible) {
  isZoomed = visible;
  element("pair").classList.toggle("zoomed", visible);
  element("zoom").setAttribute("aria-pressed", String(visible));
  for (const id of ["left", "right"]) {
    const image = element(id);
    const fitted = Math.min(
      image.clientWidth / (image.naturalWidth || 1),
      image.clientHeight / (image.naturalHeight || 1),
    );
    const scale = Math.max(MIN_ZOOM, 1 / (fitted || 1));
    image.style.transform = visible ? `scale(${scale})` : "";
    image.style.transformOrigin = `${100 * centre.x}% ${100 * centre.y}%`;
  }
}

// The pointer's position in the frame of the picture under it.
function moveCentre(event) {
  const frame = event.target.closest("#pair > div");
  if (!frame) return false;
  const box = frame.getBoundingClientRect();
  const share = (value) => Math.min(Math.max(value, 0), 1);
  centre = {
    x: share((event.clientX - box.left) / box.width),
    y: share((event.clientY - box.top) / box.height),
  };
  return true;
}

let hasDragged = false;
element("pair").addEventListener("pointerdown", () => (hasDragged = false));
element("pair").addEventListener("pointermove", (event) => {
  if (!isZoomed || !moveCentre(event)) return;
  hasDragged = event.pointerType === "touch";
  showZoom(true);
});
element("pair").addEventListener("click", (event) => {
  if (hasDragged || !moveCentre(event)) return;
  showZoom(!isZoomed);
});

// Several people may use one computer: the answers of one must not mix with those of the next.
function restart() {
  const question = "Delete the answers stored in this browser and start as another person? " +
    "Save them first.";
  if (!confirm(question)) return;
  answers = {};
  position = 0;
  element("rater").value = "";
  storeAnswers();
  render();
}

const csvCell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function saveCsv() {
  const rater = element("rater").value.trim();
  if (!rater) {
    element("rater").focus();
    element("rater").placeholder = "enter your name first";
    element("rater").required = true;
    return;
  }
  const rows = study.pairs
    .filter((pair) => answers[pair.name])
    .map((pair) => {
      const [chosen, time] = answers[pair.name];
      return [study.study, rater, pair.name, study.a, study.b, pair.left, chosen, time];
    });
  const lines = [COLUMNS, ...rows].map((row) => row.map(csvCell).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = `study-${study.study}-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
  link.click();
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target === element("rater");
  if (isTyping || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "equal" }[event.key];
  if (choice) answer(choice);
  else if (event.key === "ArrowUp") goBack();
  else if (event.key.toLowerCase() === "z") showZoom(!isZoomed);
  else return;
  event.preventDefault();
});
for (const choice of ["left", "equal", "right"]) {
  element(`answer-${choice}`).addEventListener("click", () => answer(choice));
}
element("back").addEventListener("click", goBack);
element("zoom").addEventListener("click", () => showZoom(!isZoomed));
element("rater").addEventListener("input", storeAnswers);
element("save").addEventListener("click", saveCsv);
element("restart").addEventListener("click", restart);
loadAnswers();
render();
