// What is inside the plots. They are SVG images that matplotlib drew, so their text is outlines in groups "text_N",
// whose first comment is the text.

const FIGURE_TEXT = 9.99;  // pixels; a label may be smaller than a sentence

async function figures(options, report) {
  for (const image of document.images) {
    const inside = image.src.startsWith("data:image/svg+xml;base64,");
    if (!isShown(image) || !(inside || /\.svg(#|$)/.test(image.src))) continue;
    const source = inside ? decoded(image.src) : await (await fetch(image.src)).text();
    if (!source.includes("Matplotlib")) continue;  // a logo
    const host = document.createElement("div");
    const box = image.getBoundingClientRect();
    host.style.cssText = `position: fixed; left: 0; top: 0; width: ${box.width}px; height: ${box.height}px`;
    const root = host.attachShadow({ mode: "open" });
    root.append(document.importNode(new DOMParser().parseFromString(source, "image/svg+xml").documentElement, true));
    const drawing = root.firstElementChild;
    drawing.setAttribute("width", "100%");
    drawing.setAttribute("height", "100%");
    document.body.append(host);
    figure(image, drawing, options, report);
    host.remove();
  }
}

function decoded(address) {
  const bytes = Uint8Array.from(atob(address.slice(address.indexOf(",") + 1)), (c) => c.charCodeAt(0));
  return new TextDecoder().decode(bytes);
}

function figure(image, drawing, options, report) {
  const fill = (e) => colour(getComputedStyle(e).fill);
  const own = getComputedStyle(drawing.querySelector("#patch_1 path")).fill;
  const paper = over(own === "none" ? [0, 0, 0, 0] : colour(own), painted(image).back);  // a clear one shows the page
  const dark = options.theme === "dark" && !options.print;
  if (dark ? luminance(paper) > 0.05 : luminance(paper) < 0.8) {
    report("theme", `figure '${image.alt}' has a background of luminance ${luminance(paper).toFixed(2)}`);
  }
  const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
  const outer = drawing.getBoundingClientRect();
  const lines = [];
  for (const group of drawing.querySelectorAll("g[id^=text_]")) {
    const outlines = group.querySelector("[transform*=scale] use, [transform*=scale] path");
    const comment = [...group.childNodes].find((node) => node.nodeType === Node.COMMENT_NODE);
    if (!outlines) continue;
    const name = `'${comment ? comment.data.trim() : group.id}' in figure '${image.alt}'`;
    // Glyphs are outlines of a hundred units.
    const size = 100 * Math.max(...[...group.querySelectorAll("[transform*=scale]")].map(ownScale)) * scale;
    const box = group.getBoundingClientRect();
    const found = contrast(over(fill(outlines), paper), paper);
    if (found < 4.5) report("contrast", `${name}: ${found.toFixed(2)}, wants 4.5`);
    if (!options.print && size < FIGURE_TEXT) report("small", `${name}: ${size.toFixed(1)} px`);
    if (box.left < outer.left - 1 || box.right > outer.right + 1 || box.top < outer.top - 1 || box.bottom > outer.bottom + 1) {
      report("clipped", `${name} is cut off`);
    }
    lines.push({ name, box });
  }
  if (!lines.length) report("image", `figure '${image.alt}' has no text`);
  reportOverlaps(lines, (line) => line.name, report);
}

function ownScale(group) {
  const matrix = group.transform.baseVal.consolidate().matrix;
  return Math.hypot(matrix.c, matrix.d);
}
