// Where the review page stores answers if it is a file: in the browser, after every change. The
// table is saved with a button. The keys `said` and `mark` are also those of older pages, whose
// stored answers stay valid.

const STORAGE_KEY = `authface-review-${page.workspaceId}`;
const CANNOT_STORE = "this browser stores nothing: save the table before you close the page";

function loadAnswers() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE_KEY) || "{}");
    for (const face of faces) {
      const entry = (stored.said || {})[idOf(face)];
      // Answers about another crop or other tags are out of date.
      if (entry && entry.mark === face.contentId) answers[idOf(face)] = entry.fields;
    }
    if (stored.reviewer) $("reviewer").value = stored.reviewer;
    current = Math.max(faces.findIndex((face) => idOf(face) === stored.here), 0);
  } catch {
    showStatus(CANNOT_STORE, true);
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
    const stored = { said: all, here: idOf(faces[current]), reviewer: reviewerName() };
    localStorage.setItem(STORAGE_KEY, JSON.stringify(stored));
    showStatus("stored in this browser");
  } catch {
    showStatus(CANNOT_STORE, true);
  }
}

const storePosition = storeAnswers;
const changeReviewer = storeAnswers;

function saveTable() {
  const hasAnswers = faces.some((face) => Object.keys(answers[idOf(face)] || {}).length);
  if (hasAnswers) withReviewer(downloadTable);
  else downloadTable();
}

function downloadTable() {
  storeAnswers();
  const reviewer = reviewerName().replace(/\W+/g, "-") || "table";
  const link = createElement("a", {
    href: URL.createObjectURL(new Blob([tableText()], { type: "text/csv" })),
    download: `review-${reviewer}.csv`,
  });
  link.click();
  showStatus("table saved");
}

$("save").addEventListener("click", saveTable);
start();
