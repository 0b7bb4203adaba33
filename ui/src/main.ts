import "./style.css";
import { about, get, withLab, type Health, type Lab, type ServiceView } from "./api";
import { BenchView } from "./bench";
import { el, fill, icon } from "./dom";
import { getLang, setLang, t } from "./i18n";
import { MapView } from "./mapview";
import { LessonDock, LessonView } from "./lesson";
import { ServicesView } from "./services";
import { TablesView } from "./tables";
import { TraceView } from "./trace";
import type { Page, View, Watch } from "./view";

const icons: Record<string, string> = {
  Map: "M5 4h6v5H5zM13 15h6v5h-6zM3 15h6v5H3zM8 9v3h8v3M6 15v-3",
  Packet: "M3 12h6m6 0h6M9 8h6v8H9zM17 8l4 4-4 4",
  Services: "M4 12h5l6-7h5M9 12h11M9 12l6 7h5",
  Tables: "M4 5h16v14H4zM4 10h16M4 14.5h16M10 10v9",
  Bench: "M5 20V11h3v9M10.5 20V5h3v15M16 20v-6h3v6M3 20h18",
  Lessons: "M4 5c4-1 6 0 8 2 2-2 4-3 8-2v13c-4-1-6 0-8 2-2-2-4-3-8-2zM12 7v13",
};

const order = ["Map", "Packet", "Services", "Tables", "Bench", "Lessons"];

class App implements Page {
  private now?: Lab;
  private healthNow: Health = { state: "up", places: {} };
  private current = "Map";
  private readonly views: Record<string, View>;
  private readonly mapView: MapView;
  private readonly traceView: TraceView;
  private readonly tablesView: TablesView;
  private readonly servicesView: ServicesView;
  private readonly dock: LessonDock;
  private readonly top = el("header");
  private readonly rail = el("nav.rail");
  private readonly stage = el("main");
  private readonly dialog = el("dialog.help");
  private readonly toast = el("div.toast", { role: "status" });
  private source?: EventSource;
  private watching: Watch = {};
  private connected = true;

  constructor() {
    this.mapView = new MapView(this);
    this.traceView = new TraceView(this);
    this.tablesView = new TablesView(this);
    this.servicesView = new ServicesView(this);
    this.dock = new LessonDock(this);
    this.views = {
      Map: this.mapView, Packet: this.traceView, Services: this.servicesView, Tables: this.tablesView,
      Bench: new BenchView(), Lessons: new LessonView(this, this.dock),
    };
    for (const v of Object.values(this.views)) {
      v.root.hidden = true;
      this.stage.append(v.root);
    }
    document.body.append(this.top, this.rail, this.stage, this.dock.root, this.dialog, this.toast);
    addEventListener("keydown", (e) => this.key(e));
    addEventListener("hashchange", () => this.fromHash());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
    this.restore();
    this.frame();
    void this.load();
    this.listen();
  }

  lab = () => this.now;
  health = () => this.healthNow;

  go(view: string): void {
    if (!this.views[view]) return;
    if (view !== this.current || this.views[view].root.hidden) {
      this.views[this.current].hide?.();
      this.views[this.current].root.hidden = true;
      this.current = view;
      this.watch({});
      this.views[view].root.hidden = false;
      this.views[view].show();
      history.replaceState(null, "", "#" + view.toLowerCase());
    }
    for (const b of this.rail.querySelectorAll("button")) b.setAttribute("aria-current", String(b.dataset.view === view));
    document.body.dataset.view = view;
  }

  openTables(place: string): void {
    this.tablesView.place = place;
    this.go("Tables");
    this.tablesView.show();
  }

  openTrace(from?: string, to?: string): void {
    this.traceView.ask(from, to);
    this.go("Packet");
  }

  openService(key: string): void {
    this.servicesView.key_ = key;
    this.go("Services");
    this.servicesView.show();
  }

  select(s: import("./map").Thing): void {
    this.go("Map");
    this.mapView.focus(s);
  }

  watch(w: Watch): void {
    if (JSON.stringify(w) === JSON.stringify(this.watching)) return;
    this.watching = w;
    this.listen();
  }

  fail(e: unknown): void {
    this.toast.textContent = e instanceof Error ? e.message : String(e);
    this.toast.classList.add("on");
    setTimeout(() => this.toast.classList.remove("on"), 7000);
  }

  private labs: string[] = [];

  use(lab: string): void {
    about(lab);
    this.lastRev = -1;
    this.watching = {};
    this.listen();
    void this.load();
  }

  private async load(): Promise<void> {
    try {
      [this.now, this.labs] = await Promise.all([get<Lab>("/api/lab"), get<string[]>("/api/labs")]);
    } catch (e) {
      if (this.now) this.fail(e);
      else this.go("Lessons"); // no lab is up: a lesson starts one
      document.body.dataset.ready = "true";
      return;
    }
    document.title = `${this.now.lab} · slipway`;
    for (const v of Object.values(this.views)) v.lab?.(this.now);
    this.frame();
    this.fromHash();
    document.body.dataset.ready = "true";
  }

  /** listen opens the stream of what changes; the browser opens it again when it breaks. */
  private listen(): void {
    this.source?.close();
    const q = new URLSearchParams(Object.entries(this.watching).filter(([, v]) => v) as [string, string][]);
    const s = new EventSource(withLab("/api/events?" + q.toString()));
    this.source = s;
    const on = (name: string, f: (data: never) => void) => s.addEventListener(name, (e) => f(JSON.parse((e as MessageEvent<string>).data) as never));
    s.onopen = () => this.connection(true);
    s.onerror = () => this.connection(false);
    on("lab", (d: { rev: number }) => {
      if (this.lastRev >= 0 && d.rev !== this.lastRev) void this.load();
      this.lastRev = d.rev;
    });
    on("health", (h: Health) => {
      this.healthNow = h;
      this.state();
      for (const v of Object.values(this.views)) v.health?.(h);
    });
    on("touched", (d: { place: string }) => {
      for (const v of Object.values(this.views)) v.touched?.(d.place);
    });
    on("service", (v: ServiceView) => this.servicesView.service(v));
  }
  private lastRev = -1;

  private connection(ok: boolean): void {
    if (ok === this.connected) return;
    this.connected = ok;
    this.state();
  }

  private readonly stateBox = el("span.state");

  private state(): void {
    const h = this.healthNow;
    const sick = Object.keys(h.places).length;
    const none = this.connected && h.state === "gone" && !this.now; // the page may show reports and lessons without a lab
    const word = !this.connected ? "no connection" : none ? "no lab" : h.state;
    fill(this.stateBox, el("i.dot"), t(word), sick > 0 && this.connected ? el("b", {}, ` · ${sick} ✗`) : null);
    this.stateBox.className = "state " + (none ? "soft" : !this.connected || (h.state !== "up" && h.state !== "partial") ? "bad" : sick || h.state === "partial" ? "odd" : "good");
    this.stateBox.title = h.problem ?? Object.entries(h.places).map(([p, w]) => `${p}: ${w.join(", ")}`).join("\n");
  }

  /** frame draws what stands around the views. */
  private frame(): void {
    const l = this.now;
    this.state();
    const search = el("input", { type: "search", id: "find", list: "places", placeholder: t("find…") + "  /", "aria-label": t("find a place"), onchange: (e: Event) => this.find(e.target as HTMLInputElement) });
    const places = el("datalist", { id: "places" });
    if (l) {
      for (const n of l.nodes) places.append(el("option", { value: n.name }));
      for (const s of l.services) places.append(el("option", { value: s.key }, t("service")));
      for (const p of l.pods.slice(0, 2000)) places.append(el("option", { value: p.key }));
    }
    const tool = (label: string, key: string, text: string, f: () => void) => el("button.tool", { title: `${t(label)} (${key})`, "aria-label": t(label), onclick: f }, text);
    fill(
      this.top,
      el("strong.logo", {}, "slipway"),
      this.labs.length > 1 ? el("select.labname", { "aria-label": t("lab"), onchange: (e: Event) => this.use((e.target as HTMLSelectElement).value) }, this.labs.map((n) => el("option", { value: n, selected: n === l?.lab }, n))) : el("span.labname", {}, l?.lab ?? ""),
      l && el("span.badge", {}, l.mode),
      l?.components && el("span.badge.quiet", {}, l.components),
      this.stateBox,
      l && el("span.counts", {}, `${l.nodes.length} ${t("nodes")} · ${l.pods.length} ${t("pods")} · ${l.services.length} ${t("services")}`),
      el("span.grow"),
      search, places,
      l && el("span.badge.quiet", {}, l.allowChange ? t("may change") : t("looks only")),
      tool("text size", "b", "A±", () => this.big()),
      tool("theme", "d", "◐", () => this.theme()),
      tool("language", "l", getLang() === "en" ? "中" : "En", () => this.lang()),
      tool("help", "?", "?", () => this.help()),
    );
    fill(this.rail, order.map((v, i) => el("button", { "data-view": v, "aria-current": String(v === this.current), title: `${t(v)} (${i + 1})`, onclick: () => this.go(v) }, icon(icons[v]), el("span", {}, t(v)))));
  }

  private find(input: HTMLInputElement): void {
    const name = input.value.trim();
    const l = this.now;
    if (!name || !l) return;
    input.value = "";
    input.blur();
    if (l.nodes.some((n) => n.name === name)) return this.select({ kind: "node", name });
    if (l.services.some((s) => s.key === name)) return this.select({ kind: "service", name });
    const pod = l.pods.find((p) => p.key === name) ?? l.pods.find((p) => p.key.includes(name));
    if (pod) return this.select({ kind: "pod", name: pod.key });
    const other = [...l.routers.map((r) => ({ kind: "router" as const, name: r.name })), ...l.nodes.map((n) => ({ kind: "node" as const, name: n.name })), ...l.services.map((s) => ({ kind: "service" as const, name: s.key }))].find((x) => x.name.includes(name));
    if (other) this.select(other);
    else this.fail(`no ${name}`);
  }

  private key(e: KeyboardEvent): void {
    if (e.ctrlKey || e.altKey || e.metaKey) return;
    const target = e.target as HTMLElement;
    if (e.key === "Escape") {
      if (this.dialog.open) this.dialog.close();
      else if (target.matches("input, select, textarea")) target.blur();
      else this.views[this.current].key?.(e);
      return;
    }
    if (this.dialog.open || target.matches("input, select, textarea")) return;
    const keys: Record<string, () => void> = {
      "?": () => this.help(), d: () => this.theme(), b: () => this.big(), l: () => this.lang(), x: () => this.dock.toggle(),
      "/": () => document.getElementById("find")?.focus(),
    };
    order.forEach((v, i) => (keys[String(i + 1)] = () => this.go(v)));
    const f = keys[e.key];
    if (f) f();
    else if (!this.views[this.current].key?.(e)) return;
    e.preventDefault();
  }

  private help(): void {
    const rows: [string, string][] = [
      ["1 … 6", "views"], ["/", "find a place"], ["n  N", "next, previous node"], ["+ − 0", "zoom, fit"], ["Esc", "clear the selection"],
      ["space", "play or pause"], ["← →", "hop by hop"], ["Home End", "first, last hop"], ["p o r", "show or hide predicted, observed, reply"],
      ["x", "lesson beside the view"], ["d", "light or dark"], ["b", "larger text, for a projector"], ["l", "English or Chinese"], ["?", "this help"],
    ];
    fill(this.dialog, el("h2", {}, t("keyboard")), el("dl", {}, rows.map(([k, what]) => [el("dt", {}, ...k.split(" ").filter(Boolean).map((x) => el("kbd", {}, x))), el("dd", {}, t(what))])),
      el("button", { onclick: () => this.dialog.close() }, t("close")));
    this.dialog.showModal();
  }

  private theme(): void {
    const root = document.documentElement;
    const dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    root.classList.remove("dark", "light");
    root.classList.add(dark ? "light" : "dark");
    localStorage.setItem("slipway.theme", dark ? "light" : "dark");
    this.restyle();
  }

  private restyle(): void {
    for (const v of Object.values(this.views)) v.restyle?.();
  }

  private big(): void {
    const on = document.documentElement.classList.toggle("big");
    localStorage.setItem("slipway.big", on ? "1" : "");
    this.restyle();
  }

  private lang(): void {
    setLang(getLang() === "en" ? "zh" : "en");
    localStorage.setItem("slipway.lang", getLang());
    this.frame();
    if (this.now) for (const v of Object.values(this.views)) v.lab?.(this.now);
    this.views[this.current].show();
    void this.dock.open();
  }

  private restore(): void {
    const theme = localStorage.getItem("slipway.theme");
    if (theme === "light" || theme === "dark") document.documentElement.classList.add(theme);
    if (localStorage.getItem("slipway.big")) document.documentElement.classList.add("big");
    const lang = localStorage.getItem("slipway.lang") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
    setLang(lang === "zh" ? "zh" : "en");
  }

  private fromHash(): void {
    const want = location.hash.slice(1).toLowerCase();
    this.go(order.find((v) => v.toLowerCase() === want) ?? (this.views[this.current].root.hidden ? "Map" : this.current));
  }
}

new App();
