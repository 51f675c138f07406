"use strict";
const run = JSON.parse(document.getElementById("data").textContent);
const [nameA, nameB] = run.names;
const slider = document.getElementById("slider");
const figures = [...document.querySelectorAll(".chart")];

// --- Samples: one row per image, real → translation → reconstruction, at the step of the slider.

const directions = [
  { id: "a", real: "real_a", fake: "fake_b", rec: "rec_a", from: nameA, to: nameB },
  { id: "b", real: "real_b", fake: "fake_a", rec: "rec_b", from: nameB, to: nameA },
];

function heading(first, second) {
  const p = document.createElement("p");
  const b = document.createElement("b");
  b.textContent = first;
  p.append(b, second);
  return p;
}

function layOut(direction) {
  const grid = document.getElementById(direction.id);
  grid.append(
    heading(direction.from, "real"),
    heading(direction.to, "translated"),
    heading(direction.from, "reconstructed"),
  );
  const columns = [
    [direction.real, `${direction.from}, real`],
    [direction.fake, `translated to ${direction.to}`],
    [direction.rec, `translated to ${direction.to} and back to ${direction.from}`],
  ];
  const rows = Math.max(...run.frames.map((frame) => frame[direction.fake].length));
  direction.cells = [];
  for (let row = 0; row < rows; row++) {
    for (const [column, words] of columns) {
      const image = document.createElement("img");
      image.alt = `image ${row + 1} of ${direction.from}: ${words}`;
      image.decoding = "sync";
      grid.append(image);
      direction.cells.push({ image, column, row });
    }
  }
}

function showFrame(index) {
  const frame = run.frames[index];
  const images = { ...run.real[frame.real], ...frame };
  for (const { image, column, row } of directions.flatMap((direction) => direction.cells)) {
    const content = images[column][row];
    image.hidden = content === undefined;
    if (content !== undefined) image.src = `data:image/jpeg;base64,${content}`;
  }
  const step = frame.step.toLocaleString("en");
  const output = document.getElementById("step");
  output.replaceChildren("step ", Object.assign(document.createElement("b"), { textContent: step }));
  output.append(` · ${index + 1} of ${run.frames.length}`);
  slider.setAttribute("aria-valuetext", `step ${step}`);
  for (const figure of figures) placeLine(figure.querySelector(".shown"), frame.step);
}

let playing = 0;
const playButton = document.getElementById("play");

function stop() {
  clearInterval(playing);
  playing = 0;
  playButton.textContent = "▶";
  playButton.setAttribute("aria-label", "Play from the first sample");
}

function play() {
  if (playing) return stop();
  slider.value = 0;
  showFrame(0);
  playButton.textContent = "❚❚";
  playButton.setAttribute("aria-label", "Stop");
  playing = setInterval(() => {
    slider.value = slider.valueAsNumber + 1;
    showFrame(slider.valueAsNumber);
    if (slider.valueAsNumber === run.frames.length - 1) stop();
  }, 250);
}

if (run.frames.length) {
  document.getElementById("samples").hidden = false;
  slider.hidden = playButton.hidden = run.frames.length === 1;
  directions.forEach(layOut);
  slider.max = run.frames.length - 1;
  slider.value = slider.max;
  slider.addEventListener("input", () => {
    stop();
    showFrame(slider.valueAsNumber);
  });
  playButton.addEventListener("click", play);
  showFrame(run.frames.length - 1);
}

// --- Curves: the values at the pointer, in place of the last ones.

function placeLine(line, step) {
  const x = (step / run.lastStep) * line.ownerSVGElement.viewBox.baseVal.width;
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
  line.style.visibility = "visible";
}

function shown(value) {
  if (value === null) return "not finite";
  return Math.abs(value) >= 1000
    ? Math.round(value).toLocaleString("en")
    : value.toPrecision(3);
}

function nearest(steps, step) {
  let best = 0;
  for (let i = 1; i < steps.length; i++) {
    if (Math.abs(steps[i] - step) < Math.abs(steps[best] - step)) best = i;
  }
  return best;
}

figures.forEach((figure, index) => {
  const { steps, values } = run.charts[index];
  const svg = figure.querySelector("svg");
  const numbers = [...figure.querySelectorAll(".key b")];
  const last = numbers.map((number) => number.textContent);
  const at = figure.querySelector(".at");
  const line = figure.querySelector(".pointed");
  const point = (event) => {
    const box = svg.getBoundingClientRect();
    const i = nearest(steps, ((event.clientX - box.left) / box.width) * run.lastStep);
    placeLine(line, steps[i]);
    numbers.forEach((number, curve) => (number.textContent = shown(values[curve][i])));
    at.textContent = `at step ${steps[i].toLocaleString("en")}`;
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", () => {
    line.style.visibility = "hidden";
    numbers.forEach((number, curve) => (number.textContent = last[curve]));
    at.textContent = "";
  });
});

// --- Commands to copy.

for (const command of document.querySelectorAll(".command pre")) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Copy" });
  const box = document.createElement("div");
  command.replaceWith(box);
  box.append(command, button);
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(command);
    try {
      await navigator.clipboard.writeText(command.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected"; // Browsers may deny access to the clipboard.
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

// --- The age of the page, and a notice if the next update is overdue, as after a killed run.

const time = document.querySelector("time");
time.title = time.textContent;
const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function relativeTime(minutes) {
  if (minutes < 1) return "just now";
  if (minutes < 60) return format.format(-Math.round(minutes), "minute");
  if (minutes < 48 * 60) return format.format(-Math.round(minutes / 60), "hour");
  return format.format(-Math.round(minutes / 1440), "day");
}

function showAge() {
  const minutes = (Date.now() - Date.parse(time.dateTime)) / 60_000;
  time.textContent = relativeTime(minutes);
  document.getElementById("late").hidden = run.dueIn === null || minutes * 60 < 3 * run.dueIn + 600;
}

showAge();
setInterval(showAge, 30_000);

// --- During the training the page reloads once a minute unless it is in use.

let lastUsed = 0;
for (const use of ["pointerdown", "pointermove", "keydown", "scroll"]) {
  addEventListener(use, () => (lastUsed = Date.now()), { passive: true });
}

function isInUse() {
  const earlier = run.frames.length && slider.value !== slider.max;
  const reading = document.querySelector("details").open;
  return playing || earlier || reading || document.hidden || Date.now() - lastUsed < 30_000;
}

if (run.training) {
  setInterval(() => isInUse() || location.reload(), 60_000);
}
