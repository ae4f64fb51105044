// Runs after answers.js.
const buttons = [...document.querySelectorAll("#pictures button")];
const KIND = "ranking";
const COLUMNS = ["study", "rater", "item", "method", "place", "rank", "answered_at"];
const ORDINALS = ["Best", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];
// An answer is { places: places from best to worst, time }.
let position = 0; // index of the item that is shown; the number of items at the end
let chosen = []; // places of the shown item that have a rank, from best to worst
let isZoomed = false;

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
  showProgress(position, total);
  if (position >= total) return;

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

function restart() {
  if (deleteAnswers()) show(0);
}

function csvRows(rater) {
  const rows = [];
  for (const item of study.items) {
    const answer = answers[item.name];
    if (!answer) continue;
    answer.places.forEach((place, rank) => {
      const method = study.methods[item.order[place]];
      rows.push([study.study, rater, item.name, method, place + 1, rank + 1, answer.time]);
    });
  }
  return rows;
}

document.addEventListener("keydown", (event) => {
  if (!isShortcut(event)) return;
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
element("save").addEventListener("click", () => saveCsv(csvRows));
element("restart").addEventListener("click", restart);
loadAnswers();
show(firstOpen(study.items));
