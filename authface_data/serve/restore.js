// The restore page: sends a photograph, waits for the result, and compares both with a slider.

const $ = (id) => document.getElementById(id);
const POLL_MS = 700;
let photo = null; // the chosen file

function choose(file) {
  if (!file) return;
  photo = file;
  $("chosen").textContent = file.name;
  $("start").disabled = false;
  $("status").textContent = "";
}

async function restore() {
  $("start").disabled = true;
  $("result").hidden = true;
  $("status").textContent = "sending the photograph …";
  try {
    const query = new URLSearchParams({ name: photo.name, model: $("model").value });
    if ($("steps").value) query.set("steps", $("steps").value);
    const { job } = await request(`jobs?${query}`, { method: "POST", body: photo });
    await finished(job);
    await showResult(job);
  } catch (error) {
    $("status").textContent = `Not restored: ${error.message}`;
  }
  $("start").disabled = false;
}

async function request(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("the server does not answer; start `authface serve` again");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function finished(job) {
  for (;;) {
    const { state, message, seconds } = await request(`jobs/${job}`);
    if (state === "failed") throw new Error(message);
    if (state === "done") return;
    $("status").textContent = `restoring for ${seconds} s … ${message}`;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function showResult(job) {
  $("before").src = `jobs/${job}/before`;
  $("after").src = `jobs/${job}/after`;
  $("download").href = `jobs/${job}/result`;
  await Promise.all([$("before").decode(), $("after").decode()]);
  $("result").hidden = false;
  $("status").textContent = "restored";
  moveEdge(50);
}

function moveEdge(percent) {
  $("slider").value = percent;
  $("compare").style.setProperty("--at", `${$("slider").value}%`);
}

function moveToPointer(event) {
  const box = $("compare").getBoundingClientRect();
  moveEdge((100 * (event.clientX - box.left)) / box.width);
}

$("file").addEventListener("change", () => choose($("file").files[0]));
for (const kind of ["dragenter", "dragover"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  choose(event.dataTransfer.files[0]);
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  restore();
});
$("slider").addEventListener("input", () => moveEdge($("slider").value));
$("compare").addEventListener("pointerdown", (event) => {
  $("compare").setPointerCapture(event.pointerId);
  moveToPointer(event);
});
$("compare").addEventListener("pointermove", (event) => {
  if ($("compare").hasPointerCapture(event.pointerId)) moveToPointer(event);
});
