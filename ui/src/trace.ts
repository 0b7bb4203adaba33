// A packet's way as an animation: the drawing with the packet in it, the hops,
// what decided at each, and the headers as they leave it.

import { post, type Fact, type Lab, type Layer, type Step, type TraceModel } from "./api";
import { el, fill } from "./dom";
import { t } from "./i18n";
import { busiest } from "./services";
import type { Page, View } from "./view";

const playEvery = 900; // ms

type Way = Step & { reply: boolean; way: string };

export class TraceView implements View {
  readonly root = el("section.traceview");
  private readonly form = el("div.bar");
  private readonly head = el("div.headline");
  private readonly drawing = el("div.drawing");
  private readonly list = el("ol.hops", { role: "listbox", tabindex: "0" });
  private readonly detail = el("div.detail", { "aria-live": "polite" });
  private readonly headers = el("div.headers");
  private readonly controls = el("div.controls");
  private from = "";
  private to = "";
  private protocol = "";
  private model?: TraceModel;
  private all: Way[] = [];
  private hops: Way[] = [];
  private rows: HTMLElement[] = [];
  private at = 0;
  private timer = 0;
  private busy = false;
  private side = { predicted: true, observed: true, reply: true };

  constructor(private readonly page: Page) {
    const below = el("div.below", {}, el("div.listbox", {}, this.list), this.detail, this.headers);
    this.root.append(this.form, this.head, this.drawing, this.controls, below);
  }

  show(): void {
    this.guess();
    this.drawForm();
    this.drawTrace();
  }

  hide(): void {
    this.stop();
  }

  lab(l: Lab): void {
    if (this.of !== l.lab) { // another lab has other ends
      this.of = l.lab;
      this.from = this.to = "";
      this.forget();
    }
    if (!this.root.hidden) this.show();
  }
  private of = "";

  /** forget leaves nothing of a packet that another lab carried. */
  private forget(): void {
    this.stop();
    this.model = undefined;
    this.all = this.hops = [];
    this.drawList();
    this.at = 0;
  }

  /** ask presets the ends. */
  ask(from?: string, to?: string): void {
    if (from) this.from = from;
    if (to) this.to = to;
    this.drawForm();
  }

  /** guess takes a pod and a service to begin with, so that one key shows something. */
  private guess(): void {
    const l = this.page.lab();
    if (!l) return;
    const pods = l.pods.filter((p) => !p.system);
    if (!this.from) this.from = (pods.find((p) => !p.ports?.length) ?? pods[0])?.key ?? l.nodes[0]?.name ?? "";
    if (!this.to) {
      const s = busiest(l.services.filter((x) => x.rules));
      this.to = s ? "svc/" + s.key : (pods.find((p) => p.key !== this.from)?.key ?? "");
    }
  }

  private drawForm(): void {
    const l = this.page.lab();
    const input = (id: string, value: string, set: (v: string) => void, list: string) => {
      const i = el("input", { id, list, value, spellcheck: "false", autocomplete: "off", oninput: (e: Event) => set((e.target as HTMLInputElement).value), onfocus: (e: Event) => (e.target as HTMLInputElement).select() });
      i.addEventListener("keydown", (e) => { if (e.key === "Enter") { i.blur(); void this.run(false); } });
      return i;
    };
    const ends = l ? [...l.pods.slice(0, 2000).map((p) => p.key), ...l.nodes.map((n) => n.name), l.external] : [];
    const goals = l ? [...l.services.map((s) => "svc/" + s.key), ...ends] : [];
    const proto = el("select", { "aria-label": t("protocol"), onchange: (e: Event) => { this.protocol = (e.target as HTMLSelectElement).value; } },
      ["", "tcp", "udp", "icmp"].map((p) => el("option", { value: p, selected: p === this.protocol }, p || t("protocol"))));
    fill(
      this.form,
      el("label", { for: "from" }, t("from")), input("from", this.from, (v) => (this.from = v), "ends"),
      el("label", { for: "to" }, t("to")), input("to", this.to, (v) => (this.to = v), "goals"), proto,
      el("button.main", { id: "send", disabled: this.busy, onclick: () => void this.run(false) }, this.busy ? t("tracing…") : t("send and watch")),
      el("button", { id: "predict", disabled: this.busy, onclick: () => void this.run(true) }, t("predict only")),
      el("datalist", { id: "ends" }, ends.map((x) => el("option", { value: x }))), el("datalist", { id: "goals" }, goals.map((x) => el("option", { value: x }))),
    );
  }

  async run(predict: boolean): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    this.stop();
    this.drawForm();
    const asked = this.of;
    try {
      const model = await post<TraceModel>("/api/trace", { from: this.from.trim(), to: this.to.trim(), protocol: this.protocol, predict });
      if (this.of !== asked) return; // the page has gone on to another lab
      this.model = model;
      this.at = 0;
      this.drawTrace();
      if (!this.root.hidden) this.play();
    } catch (e) {
      this.page.fail(e);
    } finally {
      this.busy = false;
      this.drawForm();
    }
  }

  private drawTrace(): void {
    const m = this.model;
    this.root.classList.toggle("blank", !m);
    if (!m) {
      fill(this.head, el("p.empty", {}, t("Choose where a packet starts and where it goes.")));
      return;
    }
    const p = m.page;
    this.all = p.ways.flatMap((w) => w.steps.map((s) => ({ ...s, reply: w.reply, way: "way-" + w.name })));
    fill(this.head, el(`b.verdict.${p.verdict}`, {}, p.headline), el(`span.${p.agree}`, {}, p.agreed), p.why && el("span", {}, "· " + p.why));
    // The drawing is made by the server from names that it has escaped.
    this.drawing.replaceChildren(document.importNode(new DOMParser().parseFromString(m.drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '), "image/svg+xml").documentElement, true));
    this.refresh();
  }

  /** refresh shows the sides that are wanted, and stays at the hop if it can. */
  private refresh(): void {
    const was = this.hops[this.at];
    const s = this.side;
    this.hops = this.all.filter((h) => (s.reply || !h.reply) && ((s.predicted && h.hasPred) || (s.observed && h.hasObs)));
    this.drawList();
    this.go(was ? Math.max(0, this.hops.findIndex((h) => h.place === was.place && h.device === was.device && h.stage === was.stage && h.reply === was.reply)) : 0);
  }

  private drawControls(): void {
    const b = (id: string, label: string, text: string, f: () => void, off: boolean) => el("button", { id, title: t(label), "aria-label": t(label), disabled: off, onclick: f }, text);
    const toggle = (k: "predicted" | "observed" | "reply") =>
      el("button.toggle", { id: "show-" + k, "aria-pressed": String(this.side[k]), onclick: () => this.toggle(k) }, t(k));
    const end = this.at >= this.hops.length - 1;
    fill(
      this.controls,
      b("first", "first hop", "|◀", () => this.step(-Infinity), this.at <= 0), b("back", "back", "◀", () => this.step(-1), this.at <= 0),
      el("button.main.play", { id: "play", onclick: () => this.play() }, this.timer ? t("pause") : t("play")),
      b("next", "forward", "▶", () => this.step(1), end), b("last", "last hop", "▶|", () => this.step(Infinity), end),
      el("output", { id: "count" }, this.hops.length ? `${this.at + 1} / ${this.hops.length}` : "–"),
      this.progress(), toggle("predicted"), toggle("observed"), toggle("reply"),
    );
  }

  private progress(): HTMLElement {
    return el("input", { type: "range", min: 0, max: Math.max(0, this.hops.length - 1), value: this.at, "aria-label": t("hops"), oninput: (e: Event) => { this.stop(); this.go(Number((e.target as HTMLInputElement).value)); } });
  }

  private drawList(): void {
    this.list.replaceChildren();
    this.rows = [];
    let place = "";
    this.hops.forEach((s, i) => {
      if (place !== s.way + s.place) {
        place = s.way + s.place;
        this.list.append(el(`li.place.${s.way}`, {}, s.place, el("small", {}, (s.node && s.node !== s.place ? ` ${t("on node")} ${s.node}` : "") + (s.reply ? ` · ${t("reply")}` : ""))));
      }
      const row = el("li.hop", { role: "option", onclick: () => { this.stop(); this.go(i); } }, el("span.mark", { "data-mark": s.mark }, s.mark), el("span", {}, `${s.stage} ${s.device}`), el("time", {}, s.since));
      if (s.ending || s.quiet) row.classList.add(s.ending || "quiet");
      this.rows.push(row);
      this.list.append(row);
    });
  }

  private go(i: number): void {
    this.at = Math.max(0, Math.min(i, this.hops.length - 1));
    this.rows.forEach((r, n) => r.setAttribute("aria-selected", String(n === this.at)));
    this.drawControls();
    const s = this.hops[this.at];
    this.move(s);
    if (!s) {
      fill(this.detail);
      fill(this.headers);
      return;
    }
    const row = this.rows[this.at];
    const box = this.list.parentElement!;
    if (row.offsetTop < box.scrollTop + 34 || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = Math.max(0, row.offsetTop - box.clientHeight / 2);
    this.describe(s);
  }

  private describe(s: Way): void {
    const side = s.pred && !this.side.observed ? s.pred : s.shown;
    const facts: Fact[] = [...(side.facts ?? [])];
    if (s.markIs && this.model?.page.compared) facts.push({ name: t("compared"), value: s.markIs });
    if (s.at) facts.push({ name: t("time"), value: `${s.at} µs` });
    const p = this.model!.page;
    fill(
      this.detail,
      el("h2", {}, `${s.stage} ${s.device}`, el("small", {}, ` · ${s.place}${s.since ? ` · ${s.since} µs` : ""}`)),
      el(`p.did.${s.ending || "ok"}`, {}, side.did), (s.notes ?? []).map((n) => el("p.bad", {}, n)), el("p", {}, s.text), dl(facts),
      p.cause.length > 0 && dl(p.cause),
      p.branches.length > 1 && [el("p.soft", {}, `${p.branches.length} ${t("ways it could go; the one shown is in bold")}`),
        el("table", {}, p.branches.map((b) => el(`tr.${b.taken ? "taken" : "other"}`, {}, el("td", {}, b.probability), el("td", {}, b.end), el("td", {}, b.pod), el("td", {}, b.verdict + (b.text ? ": " + b.text : "")))))],
      p.notes.map((n) => el("p.soft", {}, n)),
    );
    fill(this.headers, el("h2", {}, t("headers as it leaves this hop")), stack(side.stack ?? []));
  }

  /** move puts the packet where the hop is, and lights the way up to it. */
  private move(s?: Way): void {
    const find = (id: string) => this.drawing.querySelector<SVGElement>("#" + id);
    for (const e of this.drawing.querySelectorAll(".now")) e.classList.remove("now", "way-reply");
    const last = Math.max(0, ...this.hops.slice(0, this.at + 1).map((h) => h.arrow));
    const shown = new Set(this.hops.map((h) => h.arrow));
    for (const e of this.drawing.querySelectorAll<SVGElement>(".arrow")) {
      const n = Number(e.id.slice(5));
      for (const x of [e, find("bead" + n)]) {
        x?.classList.toggle("ahead", n > last);
        x?.classList.toggle("away", !shown.has(n) && (!this.side.reply || !this.side.predicted));
        x?.classList.toggle("current", n === s?.arrow);
      }
    }
    const packet = find("packet");
    const chip = s && find("chip" + s.chip);
    if (!packet) return;
    packet.style.display = chip ? "" : "none";
    if (!chip || !s) return;
    chip.classList.add("now");
    if (s.reply) chip.classList.add("way-reply");
    const r = chip.querySelector("rect")!;
    packet.style.transform = `translate(${Number(r.getAttribute("x"))}px, ${Number(r.getAttribute("y")) + Number(r.getAttribute("height")) / 2}px)`;
    const side = s.pred && !this.side.observed ? s.pred : s.shown;
    packet.setAttribute("class", [s.way, side.tunnel && "carried", s.ending].filter(Boolean).join(" "));
  }

  private step(by: number): void {
    this.stop();
    this.go(by === Infinity ? this.hops.length - 1 : by === -Infinity ? 0 : this.at + by);
  }

  private stop(): void {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = 0;
    this.drawControls();
  }

  private play(): void {
    if (this.timer) return this.stop();
    if (!this.hops.length) return;
    if (this.at >= this.hops.length - 1) this.at = 0;
    this.timer = window.setInterval(() => (this.at >= this.hops.length - 1 ? this.stop() : this.go(this.at + 1)), playEvery);
    this.go(this.at);
  }

  private toggle(k: "predicted" | "observed" | "reply"): void {
    this.side[k] = !this.side[k];
    this.refresh();
  }

  key(e: KeyboardEvent): boolean {
    if (!this.model) {
      if (e.key !== "Enter") return false;
      void this.run(false);
      return true;
    }
    const keys: Record<string, () => void> = {
      ArrowRight: () => this.step(1), ArrowDown: () => this.step(1), ArrowLeft: () => this.step(-1), ArrowUp: () => this.step(-1), PageDown: () => this.step(5), PageUp: () => this.step(-5),
      Home: () => this.step(-Infinity), End: () => this.step(Infinity), " ": () => this.play(), p: () => this.toggle("predicted"), o: () => this.toggle("observed"), r: () => this.toggle("reply"),
    };
    if (!keys[e.key]) return false;
    keys[e.key]();
    return true;
  }
}

function dl(list: Fact[]): HTMLElement {
  return el("dl.facts", {}, list.map((f) => [el("dt", {}, f.name), el("dd", {}, f.verbatim ? el("code", {}, f.value) : f.value)]));
}

function stack(layers: Layer[]): HTMLElement[] {
  const carried = layers.some((l) => l.outer && !l.gone);
  return layers.map((l) => {
    const d = el("div.layer", {}, el("h3", {}, l.name, l.gone ? ` — ${t("taken off")}` : l.new ? ` — ${t("put on")}` : ""),
      el("div.fields", {}, (l.fields ?? []).map((f) => el(`span.${f.changed ? "changed" : "field"}`, {}, el("span.k", {}, f.name + " "), f.was ? [el("del", {}, f.was), " → "] : null, el("b", {}, f.value)))));
    d.classList.toggle("outer", l.outer);
    d.classList.toggle("inside", carried && !l.outer);
    d.classList.toggle("gone", l.gone);
    d.classList.toggle("new", l.new);
    return d;
  });
}
