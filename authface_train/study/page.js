"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const KEY = `authface-study-${data.study}`;
const COLUMNS = ["study", "rater", "pair", "a", "b", "left", "answer", "answered_at"];

let answers = {}; // pair's name -> [answer, when]
let here = 0;

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) || "{}");
    answers = kept.answers || {};
    $("rater").value = kept.rater || "";
  } catch {
    $("kept").textContent = "This browser keeps nothing: save before you close.";
  }
  const open = data.pairs.findIndex((pair) => !answers[pair.name]);
  here = open < 0 ? data.pairs.length : open;
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify({ answers, rater: $("rater").value }));
    $("kept").textContent = "Kept in this browser.";
  } catch {
    $("kept").textContent = "This browser keeps nothing: save before you close.";
  }
}

function show() {
  const total = data.pairs.length;
  $("anew").hidden = !Object.keys(answers).length;
  $("bar").style.width = `${(100 * Object.keys(answers).length) / total}%`;
  $("asking").hidden = here >= total;
  $("done").hidden = here < total;
  if (here >= total) return;
  const pair = data.pairs[here];
  $("left").src = pair.pictures[0];
  $("right").src = pair.pictures[1];
  $("given").hidden = !pair.given;
  if (pair.given) $("given").src = pair.given;
  $("where").textContent = `Pair ${here + 1} of ${total}`;
  const said = answers[pair.name] ? answers[pair.name][0] : "";
  for (const side of ["left", "right"]) $(`say-${side}`).classList.toggle("said", said === methodOf(pair, side));
  $("say-equal").classList.toggle("said", said === "equal");
}

const methodOf = (pair, side) => ((side === "left") === (pair.left === "a") ? "a" : "b");

function say(what) {
  if (here >= data.pairs.length) return;
  const pair = data.pairs[here];
  answers[pair.name] = [what === "equal" ? "equal" : methodOf(pair, what), new Date().toISOString()];
  here += 1;
  keep();
  show();
}

function back() {
  here = Math.max(here - 1, 0);
  show();
}

// On a computer that several people use: the last one's answers must not become the next one's.
function anew() {
  if (!confirm("Forget the answers that are kept here, and begin for another person? Save them first.")) return;
  answers = {};
  here = 0;
  $("rater").value = "";
  keep();
  show();
}

const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function save() {
  const rater = $("rater").value.trim();
  if (!rater) {
    $("rater").focus();
    $("rater").placeholder = "first say who you are";
    return;
  }
  const rows = data.pairs
    .filter((pair) => answers[pair.name])
    .map((pair) => [data.study, rater, pair.name, data.a, data.b, pair.left, ...answers[pair.name]]);
  const text = [COLUMNS, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `study-${data.study}-${rater.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
  link.click();
}

document.addEventListener("keydown", (event) => {
  if (event.target === $("rater") || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const said = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "equal" }[event.key];
  if (said) say(said);
  else if (event.key === "ArrowUp") back();
  else return;
  event.preventDefault();
});
for (const side of ["left", "equal", "right"]) $(`say-${side}`).addEventListener("click", () => say(side));
$("rater").addEventListener("input", keep);
$("save").addEventListener("click", save);
$("anew").addEventListener("click", anew);
restore();
show();
