// Runs after answers.js.
const KIND = "study";
const COLUMNS = ["study", "rater", "pair", "a", "b", "left", "answer", "answered_at"];
// An answer is [choice, time].
let position = 0; // index of the pair that is shown; the number of pairs at the end

// Method whose picture is on a side: "a" or "b".
function methodAt(pair, side) {
  const isLeft = side === "left";
  return isLeft === (pair.left === "a") ? "a" : "b";
}

function render() {
  const total = study.pairs.length;
  showProgress(position, total);
  if (position >= total) return;

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

let isZoomed = false;
let centre = { x: 0.5, y: 0.5 }; // the part that is shown, as shares of the picture

function showZoom(visible) {
  isZoomed = visible;
  element("pair").classList.toggle("zoomed", visible);
  element("zoom").setAttribute("aria-pressed", String(visible));
  for (const id of ["left", "right"]) {
    const image = element(id);
    image.style.transform = visible ? `scale(${zoomScale(image)})` : "";
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

function restart() {
  if (!deleteAnswers()) return;
  position = 0;
  render();
}

function csvRows(rater) {
  return study.pairs
    .filter((pair) => answers[pair.name])
    .map((pair) => {
      const [chosen, time] = answers[pair.name];
      return [study.study, rater, pair.name, study.a, study.b, pair.left, chosen, time];
    });
}

document.addEventListener("keydown", (event) => {
  if (!isShortcut(event)) return;
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
element("save").addEventListener("click", () => saveCsv(csvRows));
element("restart").addEventListener("click", restart);
loadAnswers();
position = firstOpen(study.pairs);
render();
