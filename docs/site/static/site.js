// Rows of wide tables are stacked on a phone, each cell behind the name of its column.
for (const table of document.querySelectorAll(".bd-article table.table")) {
  const heads = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent)
  if (heads.length < 3) continue
  table.classList.add("stacks")
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

// A screen reader names the buttons that copy; the theme's menu gives the keyboard back to its button.
for (const button of document.querySelectorAll("button.copybtn")) button.setAttribute("aria-label", "Copy")
document.addEventListener("hidden.bs.dropdown", (menu) => {
  if (document.activeElement === document.body) menu.target.focus()
})

// A page that was opened from disk may not fetch the beginnings of those that a search finds.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false
