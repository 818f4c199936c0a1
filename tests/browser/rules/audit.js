// Runs every rule and returns what it found, each once, as "rule: where and what".

async function audit(options) {
  const found = new Set();
  const report = (rule, text) => found.add(`${rule}: ${text}`);
  const rules = [
    head, headings, images, tables, names, markup, pageColours, textColours, textSizes, width, places, scrollers, overlaps,
  ];
  for (const rule of rules) rule(options, report);
  await figures(options, report);
  return [...found];
}
