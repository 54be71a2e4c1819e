"use strict";

// Shows `over` (rainy) left of the line and `under` (de-rained) right of it; the range input moves the line.
function compare(slider, over, under) {
  const range = slider.querySelector("input");
  const move = () => {
    slider.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext", Math.round(range.value) + " percent rainy");
  };
  slider.querySelectorAll("img").forEach((picture) => picture.remove());
  over.className = "over";
  over.alt = under.alt = "";
  slider.style.setProperty("--ratio", under.getAttribute("width") / under.getAttribute("height"));
  slider.prepend(under, over);
  range.oninput = move;
  move();
  slider.hidden = false;
}

// Pictures that the page already holds, each under its id, are shown again in the slider.
for (const slider of document.querySelectorAll(".slider[data-over]")) {
  const again = (id) => {
    const picture = document.getElementById(id).cloneNode();
    picture.removeAttribute("id");
    return picture;
  };
  compare(slider, again(slider.dataset.over), again(slider.dataset.under));
}
