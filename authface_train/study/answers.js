"use strict";
// What the pages of both kinds of study share: the answers in the browser's storage, the rater's
// name and the CSV file. The script that follows defines KIND and COLUMNS.
const study = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const STORED = "Your answers are stored in this browser.";
const NOT_STORED = "This browser stores nothing: save your answers before you close the page.";
const MIN_ZOOM = 2;

let answers = {}; // name of the question -> its answer

const storageKey = () => `authface-${KIND}-${study.study}`;

function loadAnswers() {
  try {
    const stored = JSON.parse(localStorage.getItem(storageKey()) || "{}");
    answers = stored.answers || {};
    element("rater").value = stored.rater || "";
  } catch {
    element("storage").textContent = NOT_STORED;
  }
}

function storeAnswers() {
  try {
    const content = { answers, rater: element("rater").value };
    localStorage.setItem(storageKey(), JSON.stringify(content));
    element("storage").textContent = STORED;
  } catch {
    element("storage").textContent = NOT_STORED;
  }
}

// Index of the first question without an answer; the number of questions at the end.
function firstOpen(questions) {
  const index = questions.findIndex((question) => !answers[question.name]);
  return index < 0 ? questions.length : index;
}

function showProgress(position, total) {
  const answered = Object.keys(answers).length;
  const isDone = position >= total;
  element("restart").hidden = answered === 0;
  element("bar").style.width = `${(100 * answered) / total}%`;
  element("progress").setAttribute("aria-valuemax", total);
  element("progress").setAttribute("aria-valuenow", answered);
  element("question").hidden = isDone;
  element("done").hidden = !isDone;
}

// Several people may use one computer: the answers of one must not mix with those of the next.
// Returns whether the answers were deleted.
function deleteAnswers() {
  const question = "Delete the answers stored in this browser and start as another person? " +
    "Save them first.";
  if (!confirm(question)) return false;
  answers = {};
  element("rater").value = "";
  storeAnswers();
  return true;
}

const csvCell = (value) => {
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

// Save the rows that makeRows returns for the name of the rater.
function saveCsv(makeRows) {
  const rater = element("rater").value.trim();
  if (!rater) {
    element("rater").focus();
    element("rater").placeholder = "enter your name first";
    element("rater").required = true;
    return;
  }
  const lines = [COLUMNS, ...makeRows(rater)].map((row) => row.map(csvCell).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = `${KIND}-${study.study}-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
  link.click();
}

// The scale that shows a picture pixel by pixel, at least MIN_ZOOM.
function zoomScale(image) {
  const fitted = Math.min(
    image.clientWidth / (image.naturalWidth || 1),
    image.clientHeight / (image.naturalHeight || 1),
  );
  return Math.max(MIN_ZOOM, 1 / (fitted || 1));
}

const isShortcut = (event) =>
  event.target !== element("rater") &&
  !(event.repeat || event.ctrlKey || event.metaKey || event.altKey);

element("rater").addEventListener("input", storeAnswers);
