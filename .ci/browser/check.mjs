// What is checked of the page in every phase, in every way of looking at it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// All rules of axe-core, best practices included. It is evaluated by the debugger, because the page's policy
// rightly forbids a script that is added.
export async function accessible(page, what) {
  if (!(await page.evaluate(() => Boolean(window.axe)))) await page.evaluate(AXE);
  const { violations, passes } = await page.evaluate(() => window.axe.run(document));
  const violated = violations.map((v) => `${v.id} (${v.impact}): ${v.help}\n  ${v.nodes.map((n) => n.html).join("\n  ")}`);
  assert.deepEqual(violated, [], `axe-core, ${what}`);
  assert.ok(passes.length > 15, `axe-core looked at too little, ${what}`);
  console.log(`axe-core, ${what}: ${passes.length} rules pass, none is violated`);
}

// The rows of the table as a person reads them, by name of the set.
export function rows(page) {
  return page.evaluate(() => Object.fromEntries([...document.querySelectorAll("tbody tr")].map((row) => {
    const cell = (label) => row.querySelector(`[data-label="${label}"]`)?.innerText.trim() ?? "";
    const name = row.querySelector("th").innerText.split("\n")[0].trim();
    return [name, {
      state: cell("State"), since: cell("Since"), evidence: cell("Evidence"), done: cell("What happens next"),
      treatments: cell("Last treatments"), text: row.innerText,
    }];
  })));
}

// No sideways scrolling of the document, and nothing that is cut off at its right.
export async function fits(page, what) {
  const wide = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const out = [...document.querySelectorAll("#live *, footer *")].filter((each) => {
      const { left, right } = each.getBoundingClientRect();
      return left > -1 && right > width + 1;
    });
    return { scroll: document.documentElement.scrollWidth, width, out: out.map((each) => each.outerHTML.slice(0, 90)) };
  });
  assert.deepEqual(wide.out, [], what);
  assert.ok(wide.scroll <= wide.width, `${what}: ${wide.scroll} px on a screen of ${wide.width} px`);
}

// The order in which Tab visits the page: each stop as tag and words, with a focus that can be seen.
export async function tabStops(page) {
  await page.reload();
  const stops = [];
  for (let press = 0; press < 40; press += 1) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const each = document.activeElement;
      if (!each || each === document.body) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(each);
      const { left, top, width, height } = each.getBoundingClientRect();
      const shown = left >= 0 && top >= 0 && top < innerHeight && width > 0 && height > 0;
      return { is: `${each.localName} ${each.innerText.trim()}`, outlined: outlineStyle !== "none" && outlineWidth !== "0px", shown };
    });
    if (!stop) break;
    assert.ok(stop.outlined && stop.shown, `the focus on "${stop.is}" cannot be seen`);
    stops.push(stop.is);
  }
  return stops;
}
