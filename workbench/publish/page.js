// What a page can do by itself: open all code at once, enlarge a picture on a phone, scroll what is wide by keys.
// It reads nothing of what notebooks hold and asks nothing of any other place.
"use strict";

function button(words, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = words;
  made.addEventListener("click", () => act(made));
  return made;
}

const code = [...document.querySelectorAll("details.code")];
if (code.length) {
  let open = false;
  const turn = switched => {
    open = !open;
    code.forEach(cell => { cell.open = open; });
    switched.textContent = open ? "Hide all code" : "Show all code";
  };
  document.querySelector(".tools").append(button("Show all code", turn));
}

document.querySelectorAll("figure").forEach(figure => {
  const turn = switched => {
    switched.textContent = figure.classList.toggle("large") ? "Fit the picture" : "Enlarge the picture";
    reach();
  };
  figure.append(button("Enlarge the picture", turn)); // shown on narrow screens only
});

function reach() {
  document.querySelectorAll(".wide, pre, figure, math[display=block]").forEach(box => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
}
reach();
window.addEventListener("resize", reach);
document.addEventListener("toggle", reach, true); // a cell that was opened
