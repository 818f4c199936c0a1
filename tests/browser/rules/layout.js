// Everything has a place on the page that can be reached, and no two texts share one.

// Size of text in pixels of the screen; drawings are scaled.
function textSize(element) {
  const size = parseFloat(getComputedStyle(element).fontSize);
  const matrix = element instanceof SVGGraphicsElement && element.getScreenCTM();
  return matrix ? size * Math.hypot(matrix.b, matrix.d) : size;
}

function textSizes(options, report) {
  if (!options.phone || options.print) return;
  for (const { element } of texts(document.body)) {
    const size = textSize(element);
    const least = element.closest("sub, sup, svg") ? 9.99 : 11.99;  // an index and a label are smaller than a line
    if (size < least) report("small", `${describe(element)}: ${size.toFixed(1)} px`);
  }
}

function width(options, report) {
  const found = document.scrollingElement.scrollWidth;
  if (found > options.width) report("sideways", `the page is ${found} px wide, the screen ${options.width}`);
}

function places(options, report) {
  const boxes = [...texts(document.body), ...pictures().map((element) => ({ element, boxes: [element.getBoundingClientRect()] }))];
  for (const { element, boxes: all } of boxes) {
    const real = all.filter((box) => box.width >= 1 && box.height >= 1);
    if (!real.length) report("empty", `${describe(element)} has no size`);
    for (const axis of ["x", "y"]) {
      const around = frame(element, axis);
      const [start, end] = axis === "x" ? ["left", "right"] : ["top", "bottom"];
      for (const box of real) {
        if (around && scrolls(around, axis)) continue;  // scrollers() looks at these
        const outer = around ? around.getBoundingClientRect() : { left: 0, right: options.width };
        const above = around ? outer[start] : axis === "x" ? 0 : -scrollY;
        const below = around ? outer[end] : axis === "x" ? options.width : Infinity;
        // Boxes of lines are a little larger than letters.
        const slack = axis === "x" ? 1 : 4;
        if (around && cutOnPurpose(around, element)) continue;
        if (box[start] < above - slack || box[end] > below + slack) {
          const where = `${axis} ${box[start].toFixed(0)} to ${box[end].toFixed(0)}`;
          report("clipped", `${describe(element)}: ${where} of ${above.toFixed(0)} to ${below.toFixed(0)}`);
        }
      }
    }
  }
}

// An ellipsis says that there is more, and the name of the link or a tooltip says what.
function cutOnPurpose(around, element) {
  const named = element.closest("[title], [aria-label]");
  const name = named && (named.title || named.getAttribute("aria-label"));
  return getComputedStyle(around).textOverflow === "ellipsis" && !!name && name.includes(element.textContent.trim());
}

// What scrolls sideways can be reached by keyboard, shows enough at a time, and comes to its end.
function scrollers(options, report) {
  if (options.print) return;
  for (const box of document.querySelectorAll("body *")) {
    if (!isShown(box) || !scrolls(box, "x") || box.scrollWidth <= box.clientWidth + 1) continue;
    const outer = box.getBoundingClientRect();
    if (outer.left < -1 || outer.right > options.width + 1) report("scroller", `${describe(box)} sticks out`);
    if (!takesFocus(box)) report("scroller", `${describe(box)} cannot be scrolled by keyboard`);
    if (box.clientWidth < 150) report("scroller", `${describe(box)} is ${box.clientWidth} px wide`);
    for (const cell of box.querySelectorAll("tr > :first-child")) {
      const kept = cell.getBoundingClientRect().width / box.clientWidth;
      if (getComputedStyle(cell).position === "sticky" && kept > 0.6) {
        report("scroller", `${describe(cell)} stays put and covers ${Math.round(100 * kept)} %`);
      }
    }
    for (const row of box.querySelectorAll("tbody tr")) {
      const [first, second] = row.children;
      const text = second && texts(second).flatMap((piece) => piece.boxes);
      // A cell across several columns is a sentence, which is read by scrolling.
      if (!text || !text.length || second.colSpan > 1 || getComputedStyle(first).position !== "sticky") continue;
      const left = Math.min(...text.map((line) => line.left));
      if (left > outer.right - 24) report("scroller", `${describe(box)} shows nothing but the first column: ${describe(row)}`);
    }
    const before = box.scrollLeft;
    box.scrollLeft = box.scrollWidth;
    const last = Math.max(...[...box.querySelectorAll("td:last-child, code, span")].map((e) => e.getBoundingClientRect().right));
    if (last > outer.right + 1) report("scroller", `${describe(box)} ends before its content`);
    box.scrollLeft = before;
  }
}

// By the tab key: because it says so, because something in it does, or because browsers let the key into what scrolls.
function takesFocus(box) {
  if (box.hasAttribute("tabindex")) return box.tabIndex >= 0;
  if (box.querySelector("a[href], button, input, [tabindex='0']")) return true;
  box.focus({ preventScroll: true });
  return document.activeElement === box;
}

// From where to where the frames around an element let it through.
const opening = remembering((element, axis) => {
  const around = frame(element, axis);
  if (!around) return [-Infinity, Infinity];
  const box = around.getBoundingClientRect();
  const [start, end] = opening(around.parentElement, axis);
  return axis === "x" ? [Math.max(start, box.left), Math.min(end, box.right)] : [Math.max(start, box.top), Math.min(end, box.bottom)];
});

function seen(element, { left, right, top, bottom }) {
  const [x, y] = [opening(element, "x"), opening(element, "y")];
  return {
    left: Math.max(left, x[0]), right: Math.min(right, x[1]), top: Math.max(top, y[0]), bottom: Math.min(bottom, y[1]),
  };
}

// Whether something opaque lies between a text and the eye, at a point of the screen: a menu over the page.
function isCovered(element, x, y) {
  for (const e of document.elementsFromPoint(x, y)) {
    if (e === element || e.contains(element)) return false;
    if (colour(getComputedStyle(e).backgroundColor)[3] === 1) return true;
  }
  return false;
}

function overlaps(options, report) {
  const lines = texts(document.body).flatMap(({ element, boxes }) => boxes.map((box) => ({ element, box: seen(element, box) })));
  const covered = (line, x, y) => isCovered(line.element, x, y);
  reportOverlaps(lines, (line) => describe(line.element), report, covered);
}

function reportOverlaps(lines, name, report, covered = () => false) {
  const sorted = lines.sort((a, b) => a.box.top - b.box.top);
  for (let i = 0; i < sorted.length; i++) {
    const a = sorted[i];
    for (let j = i + 1; j < sorted.length && sorted[j].box.top < a.box.bottom; j++) {
      const b = sorted[j];
      const across = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
      const down = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
      const height = Math.min(a.box.bottom - a.box.top, b.box.bottom - b.box.top);
      // Lines of tightly set text touch; letters share a place only when a third of a line does.
      if (across <= 2 || down <= height / 3) continue;
      if (a.element && a.element === b.element) continue;  // an ellipsis lies on the text that it cuts
      const x = Math.max(a.box.left, b.box.left) + across / 2, y = Math.max(a.box.top, b.box.top) + down / 2;
      if (!covered(a, x, y) && !covered(b, x, y)) report("overlap", `${name(a)} and ${name(b)}`);
    }
  }
}
