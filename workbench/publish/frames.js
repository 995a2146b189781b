// Sliders for what `workbench.show.frames` packed: the n-th line of a frame fills the n-th place of its block.
// Data goes in as text alone (textContent) and as widths that are numbers; nothing is asked of any other place.
"use strict";

function bring(block) {
  const { dials, lines, frames } = JSON.parse(block.dataset.frames);
  const line = lines.split("\n"), frame = frames.split("\n");
  const places = block.querySelectorAll(".line");

  const inputs = [...block.querySelectorAll(".dial")].map((dial, i) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: 0, max: dials[i].stops.length - 1, value: dials[i].at });
    input.setAttribute("aria-label", dials[i].name); // without its value, which is told apart
    input.addEventListener("input", draw);
    dial.lastElementChild.before(input); // a label is for the first in it that can have one, and an output could
    return input;
  });

  function fill(place, text) {
    const [name, length, said] = text.split("\t");
    if (length === undefined) {
      place.textContent = name;
      return;
    }
    const [title, track, words] = place.children;
    title.textContent = name;
    track.firstElementChild.style.width = `${Number(length)}%`;
    words.textContent = said;
  }

  function draw() {
    let at = 0;
    inputs.forEach((input, i) => {
      const stops = dials[i].stops, said = stops[input.value];
      at = at * stops.length + Number(input.value);
      input.setAttribute("aria-valuetext", said);
      input.nextElementSibling.textContent = said;
    });
    frame[at].split(" ").forEach((number, i) => fill(places[i], line[number]));
  }
  draw();
}

document.querySelectorAll("[data-frames]").forEach(bring);
