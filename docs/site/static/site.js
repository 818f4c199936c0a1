// Rows of wide tables are stacked on a phone, each cell behind the name of its column.
for (const table of document.querySelectorAll(".bd-article table.table")) {
  const heads = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent)
  // A table of names and what they are stacks where it does not fit.
  const fits = table.scrollWidth <= table.parentElement.clientWidth
  if (heads.length < 2 || (heads.length === 2 && fits)) continue
  table.classList.add("stacks")
  table.classList.toggle("pair", heads.length === 2)
  for (const row of table.querySelectorAll("tbody tr")) {
    ;[...row.cells].forEach((cell, i) => cell.setAttribute("data-head", heads[i] ?? ""))
  }
}

// A shadow shows on which side of a table there is more.
for (const frame of document.querySelectorAll(".pst-scrollable-table-container")) {
  const mark = () => {
    frame.classList.toggle("more-left", frame.scrollLeft > 1)
    frame.classList.toggle("more-right", frame.scrollLeft + frame.clientWidth < frame.scrollWidth - 1)
  }
  frame.addEventListener("scroll", mark)
  new ResizeObserver(mark).observe(frame)
}

// Paper is white, whatever theme was chosen for the screen.
const root = document.documentElement
let chosen = root.dataset.theme
matchMedia("print").addEventListener("change", (paper) => {
  if (paper.matches) chosen = root.dataset.theme
  root.dataset.theme = paper.matches ? "light" : chosen
})

// The halves of the first picture, which a phone shows below each other.
const front = document.querySelector("#classifiers-whose-confidence-you-can-trust > p > img")
for (const half of front ? [front.cloneNode(), front.cloneNode()] : []) {
  half.className = "half"
  front.after(half)
}

// The link that covers a card of the gallery hides its text: those who hear it need a name.
for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer p a")) {
  link.setAttribute("aria-label", link.textContent)
}

// The theme's menu gives the keyboard back to its button.
document.addEventListener("hidden.bs.dropdown", ({ target }) => {
  const last = document.activeElement
  if (last === document.body || target.parentElement.contains(last)) target.focus()
})

// A page that was opened from disk may not fetch the beginnings of those that a search finds.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false
