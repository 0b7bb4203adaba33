// The map with what is known of the thing that is selected beside it.

import type { Health, Lab } from "./api";
import { el, fill, type Child } from "./dom";
import { t } from "./i18n";
import { LabMap, podName, type Thing } from "./map";
import type { Page, View } from "./view";

export class MapView implements View {
  readonly root = el("section.mapview");
  private readonly canvas = el("div.canvas", { tabindex: "0", "aria-label": "map" });
  private readonly side = el("aside.side");
  private map?: LabMap;
  private chosen?: Thing;
  private width = 0; // of the canvas

  constructor(private readonly page: Page) {
    this.root.append(this.canvas, this.side);
    new ResizeObserver(() => {
      if (this.root.hidden || !this.map) return;
      // Larger text or a lesson beside the map: all of it is to be seen again.
      if (Math.abs(this.canvas.clientWidth - this.width) > 40) this.map.fit();
      else this.map.cy.resize();
      this.width = this.canvas.clientWidth;
    }).observe(this.canvas);
  }

  show(): void {
    this.draw();
    this.describe();
  }

  lab(_: Lab): void {
    if (this.root.hidden) return; // drawn when it is shown
    this.draw();
    this.describe();
  }

  health(h: Health): void {
    this.map?.setHealth(h);
    if (!this.root.hidden) this.describe();
  }

  touched(place: string): void {
    this.map?.touch(place);
  }

  restyle(): void {
    this.map?.restyle();
  }

  focus(s: Thing): void {
    this.map?.focus(s);
  }

  key(e: KeyboardEvent): boolean {
    const m = this.map;
    if (!m) return false;
    const pan = (x: number, y: number) => () => m.cy.panBy({ x, y });
    const keys: Record<string, () => void> = {
      n: () => m.next(1), N: () => m.next(-1), "+": () => m.zoomBy(1.25), "=": () => m.zoomBy(1.25), "-": () => m.zoomBy(0.8), "0": () => m.fit(), Escape: () => m.clear(),
      ArrowLeft: pan(80, 0), ArrowRight: pan(-80, 0), ArrowUp: pan(0, 80), ArrowDown: pan(0, -80),
      Enter: () => this.chosen && this.chosen.kind === "service" ? this.page.openService(this.chosen.name) : this.chosen && this.page.openTables(this.chosen.name),
    };
    if (!keys[e.key]) return false;
    keys[e.key]();
    return true;
  }

  private draw(): void {
    const l = this.page.lab();
    if (!l) return;
    this.map ??= new LabMap(this.canvas, (s) => {
      this.chosen = s;
      this.describe();
    });
    this.map.cy.resize();
    this.map.show(l);
    this.map.setHealth(this.page.health());
    (window as unknown as { slipwayMap: unknown }).slipwayMap = this.map; // for measuring
  }

  private describe(): void {
    const l = this.page.lab();
    if (!l) return;
    const c = this.chosen;
    const facts = (rows: [string, Child][]) => el("dl.facts", {}, rows.filter(([, v]) => v).map(([k, v]) => [el("dt", {}, t(k)), el("dd", {}, v)]));
    const act = (label: string, f: () => void) => el("button", { onclick: f }, t(label));
    const link = (s: Thing, text = s.name) => el("button.link", { onclick: () => this.map?.focus(s), title: s.name }, text);
    const wrong = (name: string) => (this.page.health().places[name] ?? []).map((w) => el("p.bad", {}, "✗ " + w));
    if (!c || c.kind === "rack") {
      this.describeLab(l, c, facts);
      return;
    }
    const head = (kind: string) => el("h2", {}, c.name, " ", el("small", {}, t(kind)));
    if (c.kind === "node") {
      const n = l.nodes.find((x) => x.name === c.name);
      const pods = l.pods.filter((p) => p.node === c.name);
      fill(this.side, head("node"), wrong(c.name), facts([["address", n?.address], ["rack", n?.rack], ["pod range", n?.podRange], ["roles", (n?.roles ?? []).join(", ")]]),
        el("div.acts", {}, act("tables", () => this.page.openTables(c.name)), act("trace from here", () => this.page.openTrace(c.name)), act("trace to here", () => this.page.openTrace(undefined, c.name))),
        el("h3", {}, `${pods.length} ${t("pods")}`), el("ul.list", {}, pods.map((p) => el("li", {}, link({ kind: "pod", name: p.key }, podName(p.key)), el("code", {}, p.address)))));
    } else if (c.kind === "pod") {
      const p = l.pods.find((x) => x.key === c.name);
      const of = l.services.filter((s) => s.ports.some((x) => x.pods.includes(c.name)));
      fill(this.side, head("pod"), wrong(c.name), facts([["address", p?.address], ["on node", p && link({ kind: "node", name: p.node })], ["ports", (p?.ports ?? []).join(", ")]]),
        el("div.acts", {}, act("trace from here", () => this.page.openTrace(c.name)), act("trace to here", () => this.page.openTrace(undefined, c.name)), act("tables", () => this.page.openTables(c.name))),
        of.length > 0 && el("h3", {}, t("services")), el("ul.list", {}, of.map((s) => el("li", {}, link({ kind: "service", name: s.key })))));
    } else if (c.kind === "service") {
      const s = l.services.find((x) => x.key === c.name);
      const pods = [...new Set(s?.ports.flatMap((p) => p.pods))];
      const ports = s?.ports.map((p) => `${p.port}/${p.protocol}${p.nodePort ? ` → ${t("node port")} ${p.nodePort}` : ""}`) ?? [];
      fill(this.side, head("service"), facts([["type", s?.type], ["cluster IP", s?.clusterIP], ["ports", el("span", {}, ports.map((p) => el("div", {}, p)))]]),
        el("div.acts", {}, s?.rules && act("probability tree", () => this.page.openService(c.name)), act("trace to here", () => this.page.openTrace(undefined, "svc/" + c.name))),
        el("h3", {}, `${pods.length} ${t("endpoints")}`), el("ul.list", {}, pods.map((p) => el("li", {}, link({ kind: "pod", name: p }, podName(p)), el("code", {}, l.pods.find((x) => x.key === p)?.node ?? "")))));
    } else {
      fill(this.side, head(c.kind === "external" ? "outside the cluster" : c.kind), wrong(c.name),
        el("div.acts", {}, act("tables", () => this.page.openTables(c.name)), c.kind === "external" && act("trace from here", () => this.page.openTrace(c.name))));
    }
  }

  private describeLab(l: Lab, c: Thing | undefined, facts: (rows: [string, Child][]) => HTMLElement): void {
    const places = this.page.health().places;
    const sick = Object.entries(places);
    const key = (cls: string, text: string) => el("li", {}, el(`i.${cls}`), t(text));
    const rack = c && l.racks.find((r) => r.name === c.name);
    fill(
      this.side,
      rack ? el("h2", {}, rack.name, " ", el("small", {}, t("rack"))) : el("h2", {}, l.lab),
      rack ? facts([["subnet", rack.subnet], ["shape", rack.shape], ["nodes", String(l.nodes.filter((n) => n.rack === rack.name).length)]])
        : facts([["mode", l.mode], ["pod network", l.podCIDR], ["service network", l.serviceCIDR], ["proxy", l.proxy], ["MTU", String(l.mtu)], ["pods", String(l.pods.length)]]),
      sick.length ? el("h3.bad", {}, t("something is wrong")) : el("p.good", {}, "✓ " + t("all is well")),
      el("ul.list", {}, sick.map(([p, w]) => el("li.bad", {}, `${p}: ${w.join(", ")}`))),
      el("h3", {}, t("legend")),
      el("ul.legend", {}, key("k-node", "node"), key("k-master", "control plane"), key("k-pod", "pod"), key("k-system", "pods of the lab itself"), key("k-service", "service"), key("k-router", "router"), key("k-bar", "switch of the rack"), key("k-touched", "touched by the last change"), key("k-sick", "not as it should be")),
      el("p.soft", {}, "? " + t("keyboard")),
    );
  }
}
