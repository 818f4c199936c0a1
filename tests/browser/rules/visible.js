// What a person can see of a page: pieces of text and pictures with their boxes, and the colours behind them.

const SKIPPED = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "TITLE", "TEXTAREA", "OPTION"]);

// Keeps what a function of an element and a second argument found: pages are still while they are looked at.
function remembering(find) {
  const known = new Map();
  return (element, more = "") => {
    if (!known.has(element)) known.set(element, new Map());
    const own = known.get(element);
    if (!own.has(more)) own.set(more, find(element, more));
    return own.get(more);
  };
}

function isShown(element) {
  const all = { opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true };
  return element.checkVisibility(all) && !putAside(element);
}

// A drawer that waits beside the screen is no part of the page until a button brings it in, nor is a link that a tab
// key brings in from above, nor a name cut to nothing, which only a screen reader says.
const putAside = remembering((element) => {
  if (getComputedStyle(element).clip === "rect(0px, 0px, 0px, 0px)") return true;
  if (getComputedStyle(element).position !== "fixed") return !!element.parentElement && putAside(element.parentElement);
  const box = element.getBoundingClientRect();
  return box.right <= 0 || box.left >= innerWidth || box.bottom <= 0;
});

// "section#runs > a.file 'page'": enough to find the place.
function describe(element) {
  const name = (e) => e.localName + (e.id ? "#" + e.id : "") + [...e.classList].slice(0, 2).map((c) => "." + c).join("");
  const text = (element.textContent || element.alt || "").trim().replace(/\s+/g, " ").slice(0, 50);
  const parent = element.parentElement;
  return (parent ? name(parent) + " > " : "") + name(element) + (text ? ` '${text}'` : "");
}

// Every visible piece of text inside an element: its node, the element it is in, and its boxes, one a line.
const texts = remembering((inside) => {
  const found = [];
  const walker = document.createTreeWalker(inside, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    if (!node.data.trim() || SKIPPED.has(element.nodeName.toUpperCase()) || !isShown(element)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].filter((box) => box.width > 0.5 && box.height > 0.5);
    found.push({ node, element, boxes });
  }
  return found;
});

// Pictures: images, drawings and the like that are meant to be shown.
function pictures() {
  return [...document.querySelectorAll("img, svg, canvas, video, button, input, select")].filter(
    (e) => isShown(e) && !e.parentElement.closest("svg") && e.type !== "hidden",
  );
}

const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const known = new Map();

// Any CSS colour as [red, green, blue, alpha], each from 0 to 1.
function colour(css) {
  if (!known.has(css)) {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = "#000";
    pixel.fillStyle = css;
    pixel.fillRect(0, 0, 1, 1);
    known.set(css, [...pixel.getImageData(0, 0, 1, 1).data].map((byte) => byte / 255));
  }
  return known.get(css);
}

function over(top, below) {
  const alpha = top[3] + below[3] * (1 - top[3]);
  if (!alpha) return [0, 0, 0, 0];
  const mixed = [0, 1, 2].map((i) => (top[i] * top[3] + below[i] * below[3] * (1 - top[3])) / alpha);
  return [...mixed, alpha];
}

// The colour behind an element and what lies in front of the page's: [background, opacity] up to the root, mixed.
// `picture` is the nearest element with a background image, if no opaque colour is in front of it.
const layers = remembering((element) => {
  const style = getComputedStyle(element);
  const own = { colour: colour(style.backgroundColor), opacity: Number(style.opacity) };
  const above = element.parentElement ? layers(element.parentElement) : { all: [], picture: null };
  const image = style.backgroundImage !== "none" ? element : null;
  return { all: [own, ...above.all], picture: image || (own.colour[3] < 1 ? above.picture : null) };
});

// The colour that ink in an element has on the screen and the one behind it, with every transparency up to the root.
const painted = remembering((element, ink) => {
  const { all, picture } = layers(element);
  let front = ink ? colour(ink) : [0, 0, 0, 0], back = [0, 0, 0, 0];
  for (const layer of all) {
    [front, back] = [front, back].map((c) => over(c, layer.colour)).map((c) => [c[0], c[1], c[2], c[3] * layer.opacity]);
  }
  const canvas = [1, 1, 1, 1];  // a page that paints nothing itself is white
  return { front: over(front, canvas), back: over(back, canvas), picture };
});

function luminance([red, green, blue]) {
  const [r, g, b] = [red, green, blue].map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
  const [a, b] = [luminance(one), luminance(other)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

// The nearest ancestor that cuts off or scrolls what does not fit into it, in that direction.
const frame = remembering((element, axis) => {
  if (!element || element === document.body || element === document.documentElement) return null;
  const style = getComputedStyle(element);
  if (style.display !== "inline" && style[axis === "x" ? "overflowX" : "overflowY"] !== "visible") return element;
  return style.position === "fixed" ? null : frame(element.parentElement, axis);
});

function scrolls(element, axis) {
  return ["auto", "scroll"].includes(getComputedStyle(element)[axis === "x" ? "overflowX" : "overflowY"]);
}
