// The page of a real lab in a real browser, step by step. Run by e2e/ui_test.go:
//   node page.mjs URL LAB SLIPWAY
// Every step waits for what a person would see; none waits for a time. It prints a
// line for each, and ends with 1 at the first that is not as it should be.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createServer, request } from "node:http";
import { launch } from "./browser.mjs";

const [url, lab, slipway] = process.argv.slice(2);
const origin = new URL(url).origin;
const patience = 120_000; // ms, for a busy machine

const run = (...args) => execFileSync(slipway, ["-L", lab, ...args], { encoding: "utf8" });

const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, locale: "en-US", colorScheme: "light" });
context.setDefaultTimeout(patience);
const page = await context.newPage();

const bad = [];
let expected = false; // requests that are meant to be refused complain in the console
page.on("console", (m) => expected || bad.push(`console ${m.type()}: ${m.text()}`));
page.on("pageerror", (e) => bad.push(`error: ${e.stack ?? e.message}`));
page.on("request", (r) => r.url().startsWith(origin + "/") || r.url().startsWith("data:") || bad.push(`request: ${r.url()}`));

const see = (what) => page.waitForFunction(what.f ?? what, what.arg);
const text = (selector, part) => page.waitForFunction(([s, p]) => [...document.querySelectorAll(s)].some((e) => e.textContent.includes(p)), [selector, part]);

const steps = {
  "the page comes and the token goes from the address": async () => {
    await page.goto(url);
    await page.waitForSelector("body[data-ready]");
    assert.ok(!page.url().includes("token"), page.url());
    assert.equal(await page.evaluate(() => document.cookie), "", "the cookie is out of the reach of scripts");
  },
  "the map has the lab's racks, nodes, devices, pods and services": async () => {
    const n = await page.evaluate(() => Object.fromEntries([".rack", ".node", ".pod", ".service", ".router", ".device"].map((c) => [c, window.slipwayMap.cy.nodes(c).length])));
    assert.deepEqual(n, { ".rack": 2, ".node": 3, ".pod": 5, ".service": 2, ".router": 1, ".device": 9 });
    await text(".state", "up");
  },
  "a node is chosen by keyboard": async () => {
    await page.keyboard.press("n");
    await text(".side h2", "node01");
    await page.keyboard.press("n");
    await text(".side h2", "node02");
    await page.keyboard.press("Escape");
    await text(".side h2", lab);
  },
  "help, dark, large and Chinese by keyboard": async () => {
    await page.keyboard.press("?");
    await page.waitForSelector("dialog[open]");
    await page.keyboard.press("Escape");
    await see(() => !document.querySelector("dialog[open]"));
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.keyboard.press("d");
    assert.notEqual(await ground(), light);
    await page.keyboard.press("d");
    const size = () => page.evaluate(() => parseFloat(getComputedStyle(document.documentElement).fontSize));
    const small = await size();
    await page.keyboard.press("b");
    assert.ok((await size()) >= 1.3 * small, "a projector's text is a third larger");
    await page.keyboard.press("b");
    await page.keyboard.press("l");
    await text(".rail", "数据包");
    await page.keyboard.press("l");
    await text(".rail", "Packet");
  },
  "a pod that comes and goes is seen without a reload": async () => {
    run("apply", "-f", process.env.EXTRA_POD);
    await see(() => window.slipwayMap.cy.nodes(".pod").some((n) => n.data("name") === "default/latecomer"));
    run("delete", "-f", process.env.EXTRA_POD);
    await see(() => !window.slipwayMap.cy.nodes(".pod").some((n) => n.data("name") === "default/latecomer"));
  },
  "a device that is down is seen, and that it is up again": async () => {
    run("exec", "node02", "--", "ip", "link", "set", "cni0", "down");
    await text(".side", "node02: cni0 is down");
    await see(() => window.slipwayMap.cy.$id("device:node02/cni0").hasClass("sick"));
    run("exec", "node02", "--", "ip", "link", "set", "cni0", "up");
    await text(".side", "all is well");
    run("up", "-f", process.env.CLUSTER); // routes of the bridge went with it
  },
  "what a change touched is marked in the tables": async () => {
    await page.keyboard.press("4");
    await page.selectOption(".tablesview select", "node02");
    await page.waitForSelector('#section-routes tr:has-text("flannel.1")');
    await page.waitForSelector('#section-fdb tr:has-text("VTEP")');
    await page.waitForSelector('#section-leases tr:has-text("node01")');
    await page.waitForSelector('#section-neighbours tr:has-text("permanent")');
    run("exec", "node02", "--", "ip", "route", "add", "203.0.113.0/24", "dev", "eth0");
    await page.waitForSelector('#section-routes tr.added:has-text("203.0.113.0/24")');
    assert.equal(await page.locator("#section-routes tr.same").count() > 3, true, "what was not touched is not marked");
  },
  "a packet is sent, and its way played": async () => {
    await page.keyboard.press("2");
    await page.fill("#from", "default/client");
    await page.fill("#to", "svc/default/web");
    await page.press("#to", "Enter");
    await text(".verdict", "DELIVERED");
    await text(".headline", "prediction and observation agree");
    const at = () => page.evaluate(() => Number(document.querySelector("#count").textContent.split("/")[0]));
    await see(() => Number(document.querySelector("#count").textContent.split("/")[0]) >= 3); // it plays by itself
    await page.keyboard.press(" ");
    const stopped = await at();
    await page.keyboard.press("End");
    assert.equal(await at(), await page.evaluate(() => Number(document.querySelector("#count").textContent.split("/")[1])));
    await page.keyboard.press("Home");
    assert.equal(await at(), 1);
    assert.ok(stopped >= 3);
    assert.equal(await page.locator(".hop[aria-selected=true]").count(), 1);
  },
  "each hop shows its headers and the rule that decided": async () => {
    const seen = { rule: false, dnat: false };
    const n = await page.evaluate(() => Number(document.querySelector("#count").textContent.split("/")[1]));
    const places = new Set();
    for (let i = 0; i < n; i++) {
      const [detail, headers, place] = await page.evaluate(() => [document.querySelector(".detail").textContent, document.querySelector(".headers").textContent, document.querySelector("#packet").style.transform]);
      places.add(place);
      seen.rule ||= detail.includes("-A KUBE-SEP-") && detail.includes("DNAT");
      seen.dnat ||= headers.includes("10.96.") && headers.includes("→");
      await page.keyboard.press("ArrowRight");
    }
    assert.deepEqual(seen, { rule: true, dnat: true });
    assert.ok(places.size >= 6, `the packet was in ${places.size} places`); // socket, eth0, veth, kernel, …: on the same node alone there are six
    await page.keyboard.press("r");
    assert.ok((await page.evaluate(() => Number(document.querySelector("#count").textContent.split("/")[1]))) < n, "without the reply there are fewer hops");
  },
  "between two nodes the tunnel's header is put on": async () => {
    const far = await page.evaluate(() => window.slipwayMap.cy.nodes(".pod").filter((n) => n.data("on") === "node03" && !n.hasClass("system")).first().data("name"));
    await page.fill("#to", far);
    await page.press("#to", "Enter");
    await text(".hops .place", far);
    await page.click('.hop:has-text("encap flannel.1")');
    await page.waitForSelector('.layer.outer.new:has-text("8472")');
  },
  "a service's tree has its probabilities, and its counters move": async () => {
    await page.keyboard.press("3");
    await page.selectOption(".servicesview select", "default/web");
    await page.waitForSelector(".shares");
    await page.selectOption('.servicesview select[aria-label="as node"]', "node01");
    await text(".servicesview .own", "1/3");
    await text(".servicesview .own", "1/2");
    await text(".servicesview .own", "1 (the rest)");
    await text(".servicesview .soft", "iptables");
    const count = (s) => `counted since shown: ${s}`;
    await text(".shares .h", count(0));
    run("proxy", "check", "web", "--from", "client", "--count", "100");
    await text(".shares .h", count(100));
  },
  "lessons are there, in the language of the page": async () => {
    await page.keyboard.press("6");
    await page.waitForSelector('.card[data-name="lost-route"]');
    await page.click('.card[data-name="lost-route"]');
    await page.waitForSelector("#lesson-start");
    const english = await page.textContent(".dock h2");
    await page.keyboard.press("l");
    await page.waitForFunction((e) => document.querySelector(".dock h2").textContent !== e, english);
    await page.keyboard.press("l");
    await page.waitForFunction((e) => document.querySelector(".dock h2").textContent === e, english);
  },
  "a packet that is still under way is left behind when another lab comes": async () => {
    await page.keyboard.press("2");
    await page.press("#to", "Enter");
    await page.keyboard.press("6"); // its answer comes to a view that is gone; the next step takes another lab
  },
  "a drill is started, checked, hinted, solved and passed": async () => {
    await page.click("#lesson-start");
    await page.waitForSelector("#lesson-check");
    await see(() => window.slipwayMap.cy.nodes(".node").length > 0 && document.querySelector(".labname").value.startsWith("sc-lost-route"));
    await page.click("#lesson-check");
    await page.waitForSelector(".checks .bad");
    await page.waitForSelector("#lesson-hint:enabled");
    await page.click("#lesson-hint");
    await page.waitForSelector(".hintbox");
    await page.waitForSelector("#lesson-solve:enabled");
    await page.click("#lesson-solve");
    await page.waitForSelector(".ran pre");
    await page.waitForSelector("#lesson-check:enabled");
    await page.click("#lesson-check");
    await text(".dock", "✓ passed");
    assert.equal(await page.locator(".checks .bad").count(), 0);
    await page.waitForSelector("#lesson-reset:enabled");
    await page.click("#lesson-reset");
    await page.waitForSelector("#lesson-start");
    await text("header", lab);
  },
  "nothing was complained of, and nothing asked for elsewhere": async () => assert.deepEqual(bad, []),
  "another site's page is refused, with the cookie at hand": async () => {
    expected = true;
    const site = createServer((_, w) => w.setHeader("Content-Type", "text/html").end("<title>elsewhere</title>"));
    await new Promise((ok) => site.listen(0, "127.0.0.1", ok));
    const other = await context.newPage();
    await other.goto(`http://127.0.0.1:${site.address().port}/`);
    const got = await other.evaluate(async (o) => {
      const ask = (path, init) => fetch(o + path, { credentials: "include", ...init }).then((r) => r.text(), (e) => "refused: " + e.name);
      return [await ask("/api/lab"), await ask("/api/trace", { method: "POST", body: "{}", headers: { "X-Slipway-UI": "1" } })];
    }, origin);
    assert.deepEqual(got, ["refused: TypeError", "refused: TypeError"]);
    const frame = await other.evaluate((o) => new Promise((ok) => {
      const f = document.createElement("iframe");
      f.onload = () => { try { ok(f.contentDocument ? "same" : "foreign"); } catch { ok("foreign"); } };
      f.src = o + "/";
      document.body.append(f);
    }), origin);
    assert.equal(frame, "foreign");
    assert.equal(await other.frames()[1].locator("header").count(), 0, "the page lets nobody frame it");
    await other.close();
    site.close();
  },
  "a rebound name, a bad token and a path elsewhere are refused": async () => {
    const ask = (path, headers) => new Promise((ok, no) => {
      const r = request(origin + path, { headers }, (a) => { a.resume(); ok(a.statusCode); });
      r.on("error", no);
      r.end();
    });
    const token = new URL(url).searchParams.get("token");
    const auth = { authorization: "Bearer " + token };
    assert.equal(await ask("/api/lab", auth), 200);
    assert.equal(await ask("/api/lab", { authorization: "Bearer nonsense" }), 401);
    assert.equal(await ask("/?token=nonsense", {}), 401);
    assert.equal(await ask("/api/lab", { ...auth, host: "rebound.example" }), 421);
    assert.equal(await ask("/..%2f..%2f..%2fetc%2fpasswd", auth), 404);
  },
};

let failed = "";
for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log(`ok   ${name}`);
  } catch (e) {
    failed = name;
    console.log(`FAIL ${name}\n${e.stack ?? e}\n${bad.join("\n")}`);
    console.log(await page.evaluate(() => document.body.innerText.slice(0, 3000)).catch(() => ""));
    break;
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
