// Rows of wide tables are stacked on a phone, each cell behind the name of its column.
for (const table of document.querySelectorAll(".bd-article table.table")) {
  const heads = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent)
  if (heads.length < 3) continue
  table.classList.add("stacks")
  for (const row of table.querySelectorAll("tbody tr")) {
    ;[...row.cells].forEach((cell, i) => cell.setAttribute("data-head", heads[i] ?? ""))
  }
}
