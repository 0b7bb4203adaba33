// How quick the page of a lab is: node frames.mjs URL [TIMES]. It opens the page three
// times in a fresh browser, moves and zooms the map, and prints JSON with the
// median of each figure: ms to the first paint and to the drawn map, frames a
// second and the longest frame while moving, MB of the heap; and the CPU time of
// all of the browser's processes, which says more than the clock where the machine is busy.
import { readFileSync, readdirSync } from "node:fs";
import { launch } from "./browser.mjs";

const [url, times = "3"] = process.argv.slice(2);
const median = (l) => [...l].sort((a, b) => a - b)[Math.floor(l.length / 2)];
const rounds = [];
const cpu = (pids) => pids.reduce((a, p) => { try { const f = readFileSync(`/proc/${p}/stat`, "utf8").split(") ")[1].split(" "); return a + 10 * (Number(f[11]) + Number(f[12])); } catch { return a; } }, 0); // ms, at 100 ticks a second
const family = () => { const all = readdirSync("/proc").filter((n) => /^\d+$/.test(n)).map((n) => { try { return [Number(n), Number(readFileSync(`/proc/${n}/stat`, "utf8").split(") ")[1].split(" ")[1])]; } catch { return [0, 0]; } }); const mine = [process.pid]; for (const m of mine) for (const [p, up] of all) if (up === m) mine.push(p); return mine.slice(1); };
for (let i = 0; i < Number(times); i++) {
  const browser = await launch();
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 720 } })).newPage();
  const before = cpu(family());
  await page.goto(url);
  await page.waitForSelector("body[data-ready]", { timeout: 120_000 });
  const first = await page.evaluate(() => new Promise((ok) => requestAnimationFrame(() => requestAnimationFrame(() => ok({
    firstPaint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN, mapDrawn: performance.now(), heap: performance.memory.usedJSHeapSize / 1e6,
    nodes: window.slipwayMap.cy.nodes(".node").length, elements: window.slipwayMap.cy.elements().length,
  })))));
  const drawn = cpu(family());
  // As a hand does: the wheel in, dragging about, out again.
  const moved = await page.evaluate(async () => {
    const cy = window.slipwayMap.cy;
    const frames = [];
    let last = performance.now();
    const step = (f) => new Promise((ok) => requestAnimationFrame((now) => { frames.push(performance.now() - last); last = performance.now(); f(); ok(now); }));
    const middle = { x: cy.width() / 2, y: cy.height() / 2 };
    for (let i = 0; i < 60; i++) await step(() => cy.zoom({ level: cy.zoom() * 1.035, renderedPosition: middle }));
    for (let i = 0; i < 120; i++) await step(() => cy.panBy({ x: 12 * Math.sin(i / 12), y: 9 * Math.cos(i / 15) }));
    const most = cy.elements().length;
    for (let i = 0; i < 60; i++) await step(() => cy.zoom({ level: cy.zoom() / 1.035, renderedPosition: middle }));
    frames.sort((a, b) => a - b);
    const sum = frames.reduce((a, b) => a + b, 0);
    return { fps: (1000 * frames.length) / sum, medianFrame: frames[frames.length >> 1], p95Frame: frames[Math.floor(frames.length * 0.95)], longest: frames[frames.length - 1], elementsNear: most, heapAfter: performance.memory.usedJSHeapSize / 1e6 };
  });
  rounds.push({ ...first, ...moved, cpuToMap: drawn - before, cpuPerFrame: (cpu(family()) - drawn) / 240 });
  await browser.close();
}
console.log(JSON.stringify(Object.fromEntries(Object.keys(rounds[0]).map((k) => [k, Math.round(10 * median(rounds.map((r) => r[k]))) / 10]))));
