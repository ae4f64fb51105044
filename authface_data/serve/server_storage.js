// Where the review page of `authface serve` stores answers: in the workspace, moments after every
// change. What is saved cannot be erased, because decisions are only added: an answer that is taken
// back becomes `unsure`.

const POSITION_KEY = `authface-served-${page.workspaceId}`;
const SAVE_DELAY_MS = 300;
const RETRY_DELAY_MS = 5000;
const STORED_FIELDS = ["decision", "rating", "reason", "note"];

let saved = {}; // face id -> stored fields
const unsaved = new Set(); // face ids
let saveTimer = null;
let isSaving = false;

async function loadAnswers() {
  try {
    const position = localStorage.getItem(POSITION_KEY);
    current = Math.max(faces.findIndex((face) => idOf(face) === position), 0);
  } catch {
    // The page starts with the first face.
  }
  if (reviewerName()) await loadStoredAnswers();
  else showStatus("decisions are saved in the workspace");
}

async function loadStoredAnswers() {
  const query = new URLSearchParams({ reviewer: reviewerName() });
  try {
    saved = await (await fetch(`answers?${query}`)).json();
  } catch {
    return showStatus("the server does not answer; start `authface serve` again", true);
  }
  for (const face of faces) {
    const id = idOf(face);
    if (!saved[id] || unsaved.has(id)) continue;
    const entries = Object.entries(saved[id]).filter(([, value]) => value);
    answers[id] = Object.fromEntries(entries);
  }
}

function storeAnswers(face) {
  withdrawIfSaved(face);
  unsaved.add(idOf(face));
  if (reviewerName()) return scheduleSave(SAVE_DELAY_MS);
  showStatus("not saved yet", true);
  withReviewer(async () => {
    await loadStoredAnswers();
    faces.forEach((_, index) => updateCard(index));
    save();
  });
}

// An answer that was saved and is removed now must not stay in force.
function withdrawIfSaved(face) {
  const id = idOf(face);
  const isEmpty = STORED_FIELDS.every((name) => !fieldOf(face, name));
  const hadDecision = saved[id] && saved[id].decision;
  if (fieldOf(face, "decision")) return;
  if (hadDecision || (saved[id] && isEmpty)) answers[id] = { ...answers[id], decision: "unsure" };
}

function scheduleSave(delay) {
  clearTimeout(saveTimer);
  saveTimer = setTimeout(save, delay);
}

async function save() {
  if (isSaving) return scheduleSave(SAVE_DELAY_MS);
  if (!unsaved.size || !reviewerName()) return;
  isSaving = true;
  showStatus("saving …");
  const ids = [...unsaved];
  let problem = await send(ids);
  if (problem && problem.status === 422 && ids.length > 1) {
    // One mistake refuses the whole table: the other faces are saved one by one.
    for (const id of ids) problem = (await send([id])) || problem;
  }
  isSaving = false;
  if (!unsaved.size) showStatus("saved in the workspace");
  else if (!problem) scheduleSave(SAVE_DELAY_MS);
  else {
    showStatus(`not saved: ${problem.message}`, true);
    if (problem.status !== 422) scheduleSave(RETRY_DELAY_MS);
  }
}

// Send the answers about some faces. Returns null, or what went wrong.
async function send(ids) {
  const fields = ids.map((id) => JSON.stringify(answers[id] || {}));
  const wanted = new Set(ids);
  const body = tableText(faces.filter((face) => wanted.has(idOf(face))));
  let response;
  try {
    response = await fetch("decisions", { method: "POST", body });
  } catch {
    return { status: 0, message: "the server does not answer; start `authface serve` again" };
  }
  if (!response.ok) {
    const { error } = await response.json();
    return { status: response.status, message: rephrase(error) };
  }
  ids.forEach((id, index) => {
    saved[id] = { ...saved[id], ...JSON.parse(fields[index]) };
    // A field that changed while it was being sent stays unsaved.
    if (JSON.stringify(answers[id] || {}) === fields[index]) unsaved.delete(id);
  });
  return null;
}

// Errors of `review import` name lines of a table, which this page has not.
function rephrase(error) {
  return error
    .replace(/^nothing was imported; line \d+, column \w+: /, "")
    .replace("export a new table", "reload this page");
}

function storePosition() {
  try {
    localStorage.setItem(POSITION_KEY, idOf(faces[current]));
  } catch {
    // The page starts with the first face next time.
  }
}

async function changeReviewer() {
  await save();
  location.reload();
}

function saveTable() {
  save();
}

window.addEventListener("beforeunload", (event) => {
  if (!unsaved.size) return;
  save();
  event.preventDefault();
});

start();
