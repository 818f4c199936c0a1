// Text can be read, and a dark page is dark.

function textColours(options, report) {
  for (const { element, boxes } of texts(document.body)) {
    if (!boxes.length) continue;
    const style = getComputedStyle(element);
    const drawn = element instanceof SVGElement;
    const { front, back, picture } = painted(element, drawn ? style.fill : style.color);
    if (picture) report("contrast", `${describe(element)} lies on the background image of ${describe(picture)}`);
    const size = textSize(element), bold = Number(style.fontWeight) >= 700;
    const wanted = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    const found = contrast(front, back);
    if (found < wanted) report("contrast", `${describe(element)}: ${found.toFixed(2)}, wants ${wanted}`);
    // Browsers leave out backgrounds when they print.
    const onPaper = contrast(front, [1, 1, 1, 1]);
    if (options.print && onPaper < wanted) report("print", `${describe(element)}: ${onPaper.toFixed(2)} on white paper`);
    if (options.print && luminance(back) < 0.5) report("print", `${describe(element)} on a dark background`);
  }
}

function pageColours(options, report) {
  const { back } = painted(document.body);
  const light = luminance(back);
  if (options.theme === "dark" && !options.print && light > 0.05) report("theme", `dark, yet luminance ${light.toFixed(2)}`);
  if ((options.theme === "light" || options.print) && light < 0.8) report("theme", `light, yet ${light.toFixed(2)}`);
  // Boxes that stay white in the dark are as bright as a lamp. A dark bar on a light page hurts nobody.
  if (options.theme !== "dark" || options.print) return;
  for (const element of document.querySelectorAll("body *")) {
    const own = colour(getComputedStyle(element).backgroundColor);
    const box = element.getBoundingClientRect();
    if (own[3] < 0.5 || box.width * box.height < 20000 || !isShown(element)) continue;
    const bright = luminance(painted(element).back);
    if (bright > 0.2) report("theme", `${describe(element)}: luminance ${bright.toFixed(2)}`);
  }
}
