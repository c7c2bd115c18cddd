// The status page in a real browser, through an incident of the lab: what it says while sets are stuck and once they
// are healed, live and without scripts, light and dark, on a phone, by keyboard and for axe-core. Usage:
//   node test.mjs BINARY [DIRECTORY for screenshots]
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { accessible, fits, rows, tabStops } from "./check.mjs";
import { Lab, until } from "./lab.mjs";

const [binary, shots] = process.argv.slice(2);
const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const VIEWS = {
  light: { viewport: { width: 1040, height: 660 }, colorScheme: "light" },
  dark: { viewport: { width: 1040, height: 660 }, colorScheme: "dark" },
  phone: { viewport: { width: 360, height: 740 }, colorScheme: "dark", isMobile: true, hasTouch: true },
  plain: { viewport: { width: 1040, height: 660 }, javaScriptEnabled: false },
};
const begun = Date.now();
const step = (words) => console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(5)} s  ${words}`);
const verdict = (page) => page.locator("#verdict").innerText();
const shoot = async (page, name) => {
  if (!shots) return;
  await page.evaluate(() => window.scrollTo(0, 0));
  await page.screenshot({ path: join(shots, `${name}.png`) });
};

// One page per view, and a note of everything that any of them asks for or complains about.
async function open(browser, address) {
  const pages = {};
  const wrong = [];
  for (const [name, options] of Object.entries(VIEWS)) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== new URL(address).origin) wrong.push(`${name} asks ${request.url()}`);
    });
    page.on("pageerror", (error) => wrong.push(`${name}: ${error.message}`));
    page.on("console", (message) => {
      const expected = /ERR_CONNECTION_REFUSED|favicon/.test(message.text() + message.location().url);
      if (message.type() === "error" && !expected) wrong.push(`${name}: ${message.text()}`);
    });
    page.loads = 0;
    page.on("load", () => (page.loads += 1));
    await page.goto(address);
    pages[name] = page;
  }
  return { pages, wrong };
}

// What every view shows, whatever the phase.
async function everyView(pages, phase, expected) {
  for (const [name, page] of Object.entries(pages)) {
    await until(`the ${name} view, ${phase}: ${expected}`, async () => expected.test(await verdict(page)));
    await fits(page, `${name}, ${phase}`);
    if (name === "plain") continue;
    await accessible(page, `${name}, ${phase}`);
  }
  const back = (page) => page.evaluate(() => getComputedStyle(document.body).color);
  assert.notEqual(await back(pages.light), await back(pages.dark), "light and dark look the same");
}

async function stuck(pages) {
  const { light } = pages;
  const incident = await light.locator(".incident").first().innerText();
  assert.match(incident, /GARM crashed or was killed.* at \d\d:\d\d:\d\d/, "what happened, and when");
  assert.match(incident, /\d of 4 sets cannot receive jobs since \d\d:\d\d:\d\d, because GitHub/, "how many, since when, why");
  for (const [name, row] of Object.entries(await rows(light))) {
    step(`${name}: ${row.state.replaceAll("\n", " ")} | ${row.done.replaceAll("\n", " ")}`);
    if (/listening/.test(row.state)) continue;
    assert.match(row.state, /✖|…|\?/, `${name}: a sign besides the colour`);
    assert.match(row.state, /GitHub refuse[sd] a session|no session|has disabled it temporarily/, `${name}: why`);
    assert.match(row.since, /\d\d:\d\d:\d\d \((.* ago|just now)\)/, `${name}: since when`);
    assert.match(row.evidence, /\d\d:\d\d:\d\d/, `${name}: evidence with its date`);
    assert.match(row.done, /waiting|waits|under way|blocked by|is due/i, `${name}: what happens next`);
  }
}

// Healing is paused by the tool's own command while the sets are looked at, so that nothing moves meanwhile.
function medic(lab, ...command) {
  const config = lab.said.match(/--config (\S+) explain/)[1];
  return promisify(execFile)(binary, ["--config", config, ...command]);
}

async function incident(lab, pages) {
  const { light, plain } = pages;
  await everyView(pages, "well", /^All 4 scale sets are healthy\.$/);
  await light.evaluate(() => {
    window.sameDocument = true;
    document.querySelector("details").open = true;
    document.querySelector("summary").focus();
  });
  step("all is well");

  await medic(lab, "pause", "--reason", "people look at it", "--for", "1h");
  lab.type("stale 10m", "crash");
  await until("every set is found stuck", async () => {
    const all = Object.values(await rows(light));
    return all.length === 4 && all.every((row) => /given up/.test(row.state) && /paused healing/.test(row.done));
  });
  await everyView(pages, "stuck", /^4 of 4 scale sets receive no jobs; healing is paused\.$/);
  await stuck(pages);
  for (const [view, page] of Object.entries(pages)) {
    for (const [name, row] of Object.entries(await rows(page))) {
      assert.match(row.done, /toggle blocked by/, `${view}, ${name}: what it would do`);
      assert.match(row.done, /paused: .* \(.*; limit: .*; passes at ([\d-]+ )?\d\d:\d\d:\d\d, in \d+/, `${view}, ${name}: guard, limit, time`);
    }
  }
  assert.match(await light.locator("details").innerText(), /log: not configured; it would show .* To enable it:/);
  assert.match(await light.locator("#say").innerText(), /receive no jobs/, "a screen reader announces it");
  step("stuck, and blocked by the pause");

  await medic(lab, "resume");
  await until("every set is treated", async () => {
    const all = Object.values(await rows(light));
    return all.every((row) => /GARM retries/.test(row.state) && /under way/.test(row.done));
  });
  await stuck(pages);
  for (const name of ["light", "dark"]) {
    await until(`${name} shows the treatments`, async () => /under way/.test(await pages[name].innerText("tbody")));
    await shoot(pages[name], `stuck-${name}`);
  }
  await until("phone shows the treatments", async () => /under way/.test(await pages.phone.innerText("tbody")));
  await shoot(pages.phone, "phone");
  step("treated");

  lab.type("stale 1s");
  await everyView(pages, "healed", /^All 4 scale sets are healthy\.$/);
  assert.match(await light.locator("main").innerText(), /healthy again since \d\d:\d\d:\d\d \(.*\): 4 of 4 scale sets/, "since when all is well");
  for (const [name, row] of Object.entries(await rows(light))) {
    assert.match(row.treatments, /\d\d:\d\d:\d\d \(.* ago\): .*(recovered|polls again)/s, `${name}: what helped`);
  }
  assert.equal(await light.locator(".incident").count(), 0, "the incident is over");
  await shoot(light, "healed");
  step("healed");

  assert.ok(await light.evaluate(() => window.sameDocument), "the page was loaded again");
  assert.equal(light.loads, 1, "loads of the live page");
  assert.ok(plain.loads > 1, "without scripts the page comes again by itself");
  assert.ok(await light.evaluate(() => document.querySelector("details").open), "what was opened stays open");
  assert.equal(await light.evaluate(() => document.activeElement.localName), "summary", "the focus stays");
}

async function keyboard(page) {
  const stops = await tabStops(page);
  assert.deepEqual(stops.map((stop) => stop.split("\n")[0].replace(/: .*/, "")), [
    "a Skip to the scale sets", "summary What the medic sees", "a JSON", "a schema", "a metrics",
  ]);
  await page.reload();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main", "the skip link skips");
  step("keyboard");
}

async function main() {
  if (!binary) throw new Error("usage: node test.mjs BINARY [DIRECTORY for screenshots]");
  if (shots) mkdirSync(shots, { recursive: true });
  const lab = await Lab.start(binary, ["--scenario", "quiet", "--speed", "8"]);
  const browser = await chromium.launch({ executablePath: EXECUTABLE, args: ["--no-sandbox"] });
  try {
    const { pages, wrong } = await open(browser, lab.page);
    await incident(lab, pages);
    await keyboard(pages.light);
    await lab.stop();
    const lost = async () => /does not answer/.test(await pages.light.locator("#say").innerText());
    await until("the page says that the medic is gone", lost);
    assert.ok((await pages.light.locator("#say").boundingBox()).height > 15, "and shows it");
    assert.deepEqual(wrong, [], "requests elsewhere and errors of the page");
    step("the page's own requests are all it makes");
  } catch (error) {
    console.error(lab.said);
    throw error;
  } finally {
    await browser.close();
    await lab.stop();
  }
}

await main();
