"use strict";
(() => {
  const data = JSON.parse(document.getElementById("trace").textContent);
  const $ = (id) => document.getElementById(id);
  const show = { predicted: true, observed: true, reply: true };
  const playEvery = 900; // ms
  let hops = []; // the steps that are shown, in order
  let rows = []; // their rows in the list
  let at = 0;
  let timer = 0;

  const el = (tag, className, ...children) => {
    const e = document.createElement(tag);
    if (className) e.className = className;
    e.append(...children.filter((c) => c !== undefined && c !== ""));
    return e;
  };

  // Everything in order, with the way it belongs to.
  const all = data.ways.flatMap((w) => w.steps.map((s) => ({ ...s, reply: w.reply, way: "way-" + w.name })));
  const wanted = (s) =>
    (show.reply || !s.reply) && ((show.predicted && s.hasPred) || (show.observed && s.hasObs));
  // The predicted side, where it differs and the observed one is not wanted.
  const sideOf = (s) => (s.pred && !show.observed ? s.pred : s.shown);

  function head() {
    $("from").textContent = data.from;
    $("to").textContent = data.to;
    $("about").textContent = data.about;
    $("verdict").textContent = data.headline;
    $("verdict").className = data.verdict;
    $("agreed").textContent = data.agreed;
    $("agreed").className = data.agree;
    $("why").textContent = data.why && "· " + data.why;
    for (const [id, has] of [["show-predicted", all.some((s) => s.hasPred)], ["show-observed", all.some((s) => s.hasObs)], ["show-reply", all.some((s) => s.reply)]]) {
      $(id).disabled = !has;
    }
  }

  // The trace as a whole: why it was not delivered, the other ways, notes.
  function whole() {
    const box = $("whole");
    if (data.cause.length) box.append(facts(data.cause));
    if (data.branches.length > 1) {
      const t = el("table");
      for (const b of data.branches) {
        t.append(el("tr", b.taken ? "taken" : "", el("td", "", b.probability), el("td", "", b.end), el("td", "", b.pod), el("td", "", b.verdict + (b.text ? ": " + b.text : ""))));
      }
      box.append(el("p", "", `${data.branches.length} ways it could go; the one shown is in bold.`), t);
    }
    for (const n of data.notes) box.append(el("p", "", n));
  }

  function facts(list) {
    const dl = el("dl");
    for (const f of list) dl.append(el("dt", "", f.name), el("dd", "", f.verbatim ? el("code", "", f.value) : f.value));
    return dl;
  }

  function list() {
    const ol = $("hops");
    ol.replaceChildren();
    rows = [];
    let place;
    hops.forEach((s, i) => {
      if (place !== s.way + s.place) {
        place = s.way + s.place;
        const on = s.node && s.node !== s.place ? " on " + s.node : "";
        ol.append(el("li", "place " + s.way, s.place, el("small", "", on + (s.reply ? " · reply" : ""))));
      }
      const row = el("li", "hop " + (s.ending || (s.quiet ? "quiet" : "")), el("span", "m-" + s.mark, s.mark), el("span", "", s.stage + " " + s.device), el("time", "", s.since));
      row.id = "hop-row-" + i;
      row.setAttribute("role", "option");
      row.addEventListener("click", () => { stop(); go(i); });
      rows.push(row);
      ol.append(row);
    });
    if (!hops.length) ol.append(el("li", "place", "no hop is known"));
  }

  function stack(layers) {
    const box = $("stack");
    box.replaceChildren();
    const carried = layers.some((l) => l.outer && !l.gone);
    for (const l of layers) {
      const d = el("div", ["layer", l.outer && "outer", carried && !l.outer && "inside", l.gone && "gone", l.new && "new"].filter(Boolean).join(" "));
      d.append(el("h3", "", l.name + (l.gone ? " — taken off" : l.new ? " — put on" : "")));
      const fields = el("div", "fields");
      for (const f of l.fields) {
        const v = el("span", f.changed ? "changed" : "", el("span", "k", f.name + " "));
        if (f.was) v.append(el("del", "", f.was), " → ");
        v.append(el("b", "", f.value));
        fields.append(v);
      }
      d.append(fields);
      box.append(d);
    }
  }

  function detail(s) {
    const side = sideOf(s);
    $("hop-title").textContent = `${s.stage} ${s.device} · ${s.place}` + (s.since ? ` · ${s.since} µs` : "");
    $("hop-did").textContent = side.did;
    $("hop-did").className = s.ending || "";
    const notes = $("hop-notes");
    notes.replaceChildren();
    for (const n of s.notes || []) notes.append(el("p", "", n));
    $("hop-text").textContent = s.text;
    const list = [...(side.facts || [])];
    if (s.markIs && data.compared) list.push({ name: "compared", value: s.markIs });
    if (s.at) list.push({ name: "time", value: `${s.at} µs after the first event` });
    $("hop-facts").replaceWith(Object.assign(facts(list), { id: "hop-facts" }));
    stack(side.stack || []);
  }

  function draw(s) {
    for (const e of document.querySelectorAll("#drawing .now")) e.classList.remove("now", "way-reply");
    const last = Math.max(0, ...hops.slice(0, at + 1).map((h) => h.arrow));
    const shown = new Set(hops.map((h) => h.arrow));
    for (const e of document.querySelectorAll("#drawing .arrow")) {
      const n = Number(e.id.slice(5));
      for (const x of [e, $("bead" + n)]) {
        x.classList.toggle("ahead", n > last);
        x.classList.toggle("away", !shown.has(n) && (!show.reply || !show.predicted));
      }
    }
    const chip = s && $("chip" + s.chip);
    $("packet").style.display = chip ? "" : "none";
    if (!chip) return;
    chip.classList.add("now");
    if (s.reply) chip.classList.add("way-reply");
    const r = chip.querySelector("rect");
    $("packet").style.transform = `translate(${Number(r.getAttribute("x"))}px, ${Number(r.getAttribute("y")) + Number(r.getAttribute("height")) / 2}px)`;
    $("packet").setAttribute("class", [s.way, sideOf(s).tunnel && "carried", s.ending].filter(Boolean).join(" "));
  }

  function go(i) {
    at = Math.max(0, Math.min(i, hops.length - 1));
    rows.forEach((r, n) => r.setAttribute("aria-selected", String(n === at)));
    const s = hops[at];
    $("count").textContent = hops.length ? `${at + 1} / ${hops.length}` : "no hops";
    $("back").disabled = $("first").disabled = at <= 0;
    $("next").disabled = $("last").disabled = at >= hops.length - 1;
    draw(s);
    if (!s) return;
    $("hops").setAttribute("aria-activedescendant", rows[at].id);
    rows[at].scrollIntoView({ block: "nearest" });
    detail(s);
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    $("play").textContent = "play";
  }

  function play() {
    if (timer) return stop();
    if (at >= hops.length - 1) go(0);
    $("play").textContent = "pause";
    timer = setInterval(() => (at >= hops.length - 1 ? stop() : go(at + 1)), playEvery);
  }

  // Shows or hides a side, and stays at the hop that was shown if it can.
  function toggle(side) {
    if ($("show-" + side).disabled) return;
    show[side] = !show[side];
    $("show-" + side).setAttribute("aria-pressed", String(show[side]));
    const was = hops[at];
    hops = all.filter(wanted);
    list();
    go(Math.max(0, hops.indexOf(was)));
  }

  function theme() {
    const root = document.documentElement;
    const dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    root.classList.toggle("dark", !dark);
    root.classList.toggle("light", dark);
  }

  const step = (by) => () => { stop(); go(at + by); };
  const end = (i) => () => { stop(); go(i); };
  const keys = {
    ArrowRight: step(1), ArrowDown: step(1), ArrowLeft: step(-1), ArrowUp: step(-1), PageDown: step(5), PageUp: step(-5),
    Home: end(0), End: end(Infinity), " ": play, p: () => toggle("predicted"), o: () => toggle("observed"), r: () => toggle("reply"), d: theme,
  };
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.altKey || e.metaKey || !keys[e.key]) return;
    e.preventDefault(); // the space bar would press the button that has the focus
    keys[e.key]();
  });
  $("first").onclick = keys.Home;
  $("back").onclick = keys.ArrowLeft;
  $("next").onclick = keys.ArrowRight;
  $("last").onclick = keys.End;
  $("play").onclick = play;
  $("theme").onclick = theme;
  for (const side of Object.keys(show)) $("show-" + side).onclick = () => toggle(side);

  head();
  whole();
  hops = all.filter(wanted);
  list();
  go(0);
})();
