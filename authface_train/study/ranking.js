"use strict";
const study = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("#pictures button")];
const STORAGE_KEY = `authface-ranking-${study.study}`;
const COLUMNS = ["study", "rater", "item", "method", "place", "rank", "answered_at"];
const ORDINALS = ["Best", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];
const STORED = "Your answers are stored in this browser.";
const NOT_STORED = "This browser stores nothing: save your answers before you close the page.";
const MIN_ZOOM = 2;

let answers = {}; // name of the item -> { places: places from best to worst, time }
let position = 0; // index of the item that is shown; the number of items at the end
let chosen = []; // places of the shown item that have a rank, from best to worst
let isZoomed = false;

function loadAnswers() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE_KEY) || "{}");
    answers = stored.answers || {};
    element("rater").value = stored.rater || "";
  } catch {
    element("storage").textContent = NOT_STORED;
  }
  const firstOpen = study.items.findIndex((item) => !answers[item.name]);
  show(firstOpen < 0 ? study.items.length : firstOpen);
}

function storeAnswers() {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify({ answers, rater: element("rater").value }));
    element("storage").textContent = STORED;
  } catch {
    element("storage").textContent = NOT_STORED;
  }
}

// Show an item with the ranks that it has been given before.
function show(index) {
  position = index;
  isZoomed = false;
  const item = study.items[position];
  chosen = item && answers[item.name] ? [...answers[item.name].places] : [];
  if (item) {
    buttons.forEach((button, place) => (button.querySelector("img").src = item.pictures[place]));
    element("prompt").hidden = !item.prompt;
    element("prompt").textContent = item.prompt || "";
  }
  render();
}

function render() {
  const total = study.items.length;
  const answered = Object.keys(answers).length;
  const isDone = position >= total;
  element("restart").hidden = answered === 0;
  element("bar").style.width = `${(100 * answered) / total}%`;
  element("progress").setAttribute("aria-valuemax", total);
  element("progress").setAttribute("aria-valuenow", answered);
  element("question").hidden = isDone;
  element("done").hidden = !isDone;
  if (isDone) return;

  buttons.forEach((button, place) => {
    const rank = chosen.indexOf(place);
    const isRanked = rank >= 0;
    button.classList.toggle("ranked", isRanked);
    button.setAttribute(
      "aria-label",
      `Picture ${place + 1}, ${isRanked ? `rank ${rank + 1}` : "no rank"}`,
    );
    const label = button.querySelector(".rank");
    label.textContent = isRanked ? ORDINALS[rank] : "";
    if (!isRanked) {
      const key = document.createElement("span");
      key.className = "keys";
      key.textContent = `key ${place + 1}`;
      label.append(key);
    }
    const image = button.querySelector("img");
    image.style.transform = isZoomed ? `scale(${zoomScale(image)})` : "";
  });
  element("zoom").setAttribute("aria-pressed", String(isZoomed));
  element("back").disabled = position === 0;
  element("clear").disabled = chosen.length === 0;
  element("next").disabled = chosen.length < buttons.length;
  element("position").textContent = `${position + 1} of ${total}`;
}

// The scale that shows the middle of a picture pixel by pixel.
function zoomScale(image) {
  const fitted = Math.min(
    image.clientWidth / (image.naturalWidth || 1),
    image.clientHeight / (image.naturalHeight || 1),
  );
  return Math.max(MIN_ZOOM, 1 / (fitted || 1));
}

// Give the picture at a place the next rank, or take its rank back. The last picture needs no
// choice: it gets the last rank by itself.
function choose(place) {
  if (position >= study.items.length || place >= buttons.length) return;
  if (chosen.length === buttons.length) chosen.pop();
  chosen = chosen.includes(place) ? chosen.filter((other) => other !== place) : [...chosen, place];
  if (chosen.length === buttons.length - 1) {
    chosen.push(buttons.findIndex((_, other) => !chosen.includes(other)));
  }
  const item = study.items[position];
  if (chosen.length === buttons.length) {
    answers[item.name] = { places: chosen, time: new Date().toISOString() };
  } else {
    delete answers[item.name];
  }
  storeAnswers();
  render();
}

function clear() {
  if (position >= study.items.length) return;
  delete answers[study.items[position].name];
  storeAnswers();
  show(position);
}

function goNext() {
  if (position < study.items.length && chosen.length === buttons.length) show(position + 1);
}

function goBack() {
  if (position > 0) show(position - 1);
}

function zoom() {
  isZoomed = !isZoomed;
  render();
}

// All pictures show the same part, so that details can be compared.
element("pictures").addEventListener("pointermove", (event) => {
  const frame = event.target.closest(".frame");
  if (!isZoomed || !frame) return;
  const box = frame.getBoundingClientRect();
  const share = (value) => 100 * Math.min(Math.max(value, 0), 1);
  const x = share((event.clientX - box.left) / box.width);
  const y = share((event.clientY - box.top) / box.height);
  for (const button of buttons) {
    button.querySelector("img").style.transformOrigin = `${x}% ${y}%`;
  }
});

// Several people may use one computer: the answers of one must not mix with those of the next.
function restart() {
  const question = "Delete the answers stored in this browser and start as another person? " +
    "Save them first.";
  if (!confirm(question)) return;
  answers = {};
  element("rater").value = "";
  storeAnswers();
  show(0);
}

const csvCell = (text) => {
  const value = String(text);
  return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
};

function saveCsv() {
  const rater = element("rater").value.trim();
  if (!rater) {
    element("rater").focus();
    element("rater").placeholder = "enter your name first";
    element("rater").required = true;
    return;
  }
  const rows = [];
  for (const item of study.items) {
    const answer = answers[item.name];
    if (!answer) continue;
    answer.places.forEach((place, rank) => {
      const method = study.methods[item.order[place]];
      rows.push([study.study, rater, item.name, method, place + 1, rank + 1, answer.time]);
    });
  }
  const lines = [COLUMNS, ...rows].map((row) => row.map(csvCell).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = `ranking-${study.study}-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
  link.click();
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target === element("rater");
  if (isTyping || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^[1-9]$/.test(event.key)) choose(Number(event.key) - 1);
  else if (event.key === "ArrowRight") goNext();
  else if (event.key === "ArrowUp" || event.key === "ArrowLeft") goBack();
  else if (event.key === "Backspace") clear();
  else if (event.key.toLowerCase() === "z") zoom();
  else return;
  event.preventDefault();
});
buttons.forEach((button, place) => button.addEventListener("click", () => choose(place)));
element("next").addEventListener("click", goNext);
element("back").addEventListener("click", goBack);
element("review").addEventListener("click", goBack);
element("clear").addEventListener("click", clear);
element("zoom").addEventListener("click", zoom);
element("rater").addEventListener("input", storeAnswers);
element("save").addEventListener("click", saveCsv);
element("restart").addEventListener("click", restart);
loadAnswers();
