// What a screen reader, a search engine and a keyboard need.

function head(options, report) {
  if (!document.documentElement.lang) report("head", "no lang");
  if (!document.title.trim()) report("head", "no title");
  if (!document.querySelector("meta[name=viewport]")) report("head", "no viewport, so a phone shows it tiny");
}

function headings(options, report) {
  const all = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(isShown);
  const first = all.filter((h) => h.localName === "h1");
  if (first.length !== 1) report("headings", `${first.length} of level 1`);
  let level = 0;
  for (const heading of all) {
    const own = Number(heading.localName[1]);
    if (!heading.textContent.trim()) report("headings", `${describe(heading)} is empty`);
    if (own > level + 1) report("headings", `${describe(heading)} comes after level ${level}`);
    level = own;
  }
}

function images(options, report) {
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth) report("image", `${describe(image)} was not loaded`);
    if (!image.alt.trim() && !image.closest("[aria-hidden=true]")) report("alt", `${describe(image)} has no alt text`);
  }
  // A figure shows one picture: a drawing, or one of two images, for the light and the dark theme.
  for (const figure of document.querySelectorAll("figure")) {
    const shown = [...figure.querySelectorAll("img, svg")].filter(isShown);
    if (figure.checkVisibility() && shown.length !== 1) report("image", `${describe(figure)} shows ${shown.length} pictures`);
  }
  for (const drawing of document.querySelectorAll("svg")) {
    if (!isShown(drawing) || drawing.parentElement.closest("svg")) continue;
    const named = drawing.getAttribute("aria-label") || drawing.getAttribute("aria-labelledby") || drawing.querySelector("title");
    // A symbol inside something with a name of its own says it a second time.
    const inside = drawing.closest("[aria-hidden=true], [aria-label], [title], a, button, label");
    if (!named && !inside) report("alt", `${describe(drawing)} has no name`);
  }
}

function tables(options, report) {
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.querySelectorAll("th")];
    if (!heads.length) report("table", `${describe(table)} has no header cells`);
    for (const cell of heads) {
      if (!cell.textContent.trim()) report("table", `${describe(table)} has an empty header cell`);
      if (!cell.closest("thead") && !cell.hasAttribute("scope")) report("table", `${describe(cell)} heads neither row nor column`);
    }
  }
}

function names(options, report) {
  const seen = new Set();
  for (const { id } of document.querySelectorAll("[id]")) {
    if (seen.has(id)) report("names", `two elements have the id ${id}`);
    if (!id || /\s/.test(id)) report("names", `'${id}' cannot be linked to`);
    seen.add(id);
  }
  for (const element of document.querySelectorAll("[aria-labelledby]")) {
    for (const id of element.getAttribute("aria-labelledby").split(/\s+/)) {
      if (!document.getElementById(id)) report("names", `${describe(element)} is named by ${id}, which is not there`);
    }
  }
  for (const element of document.querySelectorAll("a[href], button, [role=region], summary")) {
    const name = element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.title;
    const region = element.getAttribute("role") === "region";
    const inside = region ? "" : element.textContent.trim() || element.querySelector("img[alt], title");
    if (isShown(element) && !name && !inside) report("names", `${describe(element)} has no name`);
  }
}

// Docstrings reach pages; their markup must not.
function markup(options, report) {
  for (const { node, element } of texts(document.body)) {
    if (element.closest("code, pre")) continue;
    if (/``|:(func|class|meth|mod|ref):`|\*\*[a-z][^*]*\*\*/i.test(node.data)) report("markup", describe(element));
  }
}
