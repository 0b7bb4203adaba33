// The map: the lab's topology as it is now.

import cytoscape from "cytoscape";
import type { Core, ElementDefinition, NodeSingular } from "cytoscape";
import type { Health, Lab, Pod } from "./api";
import { card, place, type Box, type Placed } from "./layout";
import { t } from "./i18n";

/** Thing is what can be selected on the map. */
export interface Thing { kind: "node" | "pod" | "service" | "router" | "rack" | "external"; name: string }

/** Pods of large labs are drawn from this zoom on, for what is in view. */
const podZoom = 0.9;
/** At most so many nodes have their pods drawn at once. */
const podNodes = 40;

const center = (b: Box) => ({ x: b.x + b.w / 2, y: b.y + b.h / 2 });
const short = (s: string, n: number) => (s.length > n ? s.slice(0, n - 1) + "…" : s);

/** podName leaves out what the pods of a workload have in common. */
export function podName(key: string): string {
  const name = key.slice(key.indexOf("/") + 1);
  const parts = name.split("-");
  return parts.length >= 3 && parts[parts.length - 1].length === 5 ? `${parts.slice(0, -2).join("-")}…${parts[parts.length - 1]}` : name;
}

/** devicesOf are those that every node of a mode has. */
function devicesOf(mode: string): string[] {
  switch (mode) {
    case "flannel-vxlan": return ["cni0", "flannel.1", "eth0"];
    case "flannel-udp": return ["cni0", "flannel0", "eth0"];
    case "flannel-host-gw": return ["cni0", "eth0"];
    case "calico-ipip": return ["tunl0", "eth0"];
    default: return ["eth0"];
  }
}

export class LabMap {
  readonly cy: Core;
  private lab?: Lab;
  private placed?: Placed;
  private podsOf = new Map<string, Pod[]>();
  private unfolded = new Set<string>();
  private health: Health = { state: "up", places: {} };
  private touched = new Map<string, number>();
  private folding = 0;

  constructor(private readonly box: HTMLElement, private readonly onSelect: (s: Thing | undefined) => void) {
    this.cy = cytoscape({
      container: box, elements: [], layout: { name: "preset" }, minZoom: 0.05, maxZoom: 4,
      boxSelectionEnabled: false, autoungrabify: true, selectionType: "single", pixelRatio: Math.min(2, devicePixelRatio),
      hideEdgesOnViewport: false, textureOnViewport: false, motionBlur: false,
    });
    this.cy.on("select", "node", (e) => {
      const n = e.target as NodeSingular;
      if (n.hasClass("device") || n.hasClass("more")) {
        n.unselect();
        this.cy.$id(`node:${n.data("name") as string}`).select();
        return;
      }
      this.selected(n);
    });
    this.cy.on("mouseover", ".service", (e) => (e.target as NodeSingular).connectedEdges(".endpoint").addClass("hover"));
    this.cy.on("mouseout", ".service", () => this.cy.edges(".hover").removeClass("hover"));
    this.cy.on("unselect", "node", () => { if (this.cy.$(":selected").empty()) this.selected(undefined); });
    this.cy.on("viewport", () => this.soonUnfold());
    this.cy.on("dbltap", "node", (e) => this.focus({ kind: (e.target as NodeSingular).data("kind"), name: (e.target as NodeSingular).data("name") }));
    this.restyle();
  }

  /** show draws a lab; what was selected stays so if it is still there. */
  show(lab: Lab): void {
    const first = !this.lab;
    const was = this.cy.$(":selected").map((n) => n.id());
    const fitted = first || !this.lab || this.lab.nodes.length !== lab.nodes.length || this.lab.racks.length !== lab.racks.length;
    this.lab = lab;
    this.placed = place(lab, Math.max(0.6, this.box.clientWidth / Math.max(1, this.box.clientHeight)));
    this.podsOf = new Map(lab.nodes.map((n) => [n.name, []]));
    for (const p of lab.pods) this.podsOf.get(p.node)?.push(p);
    this.unfolded.clear();
    this.cy.batch(() => {
      this.cy.elements().remove();
      this.cy.add(this.elements());
    });
    if (fitted) this.fit();
    this.unfold();
    this.mark();
    if (was.length) this.cy.$id(was[0]).select();
  }

  fit(): void {
    this.cy.resize();
    this.cy.fit(undefined, 18);
    if (this.cy.zoom() > 1.5) {
      this.cy.zoom(1.5);
      this.cy.center();
    }
  }

  /** focus selects a thing and brings it near. */
  focus(s: Thing): void {
    if (s.kind === "pod") {
      const pod = this.lab?.pods.find((p) => p.key === s.name);
      if (pod) this.addPods([pod.node]);
    }
    const e = this.cy.$id(`${s.kind}:${s.name}`);
    if (e.empty()) return;
    this.cy.elements().unselect();
    e.select();
    const zoom = Math.max(this.cy.zoom(), this.placed?.small ? 1.2 : 1.6);
    this.cy.animate({ zoom, center: { eles: e } }, { duration: 250 });
  }

  select(s: Thing): void {
    if (s.kind === "pod") {
      const pod = this.lab?.pods.find((p) => p.key === s.name);
      if (pod) this.addPods([pod.node]);
    }
    this.cy.elements().unselect();
    this.cy.$id(`${s.kind}:${s.name}`).select();
  }

  clear(): void {
    this.cy.elements().unselect();
    this.selected(undefined);
  }

  /** next selects the node after the one that is selected. */
  next(by: number): void {
    const names = this.lab?.nodes.map((n) => n.name) ?? [];
    if (!names.length) return;
    const at = names.indexOf(this.cy.$("node[kind = 'node']:selected").first().data("name") as string);
    const to = at < 0 ? (by > 0 ? 0 : names.length - 1) : (at + by + names.length) % names.length;
    this.select({ kind: "node", name: names[to] });
    const e = this.cy.$id(`node:${names[to]}`);
    const view = this.cy.extent();
    const b = e.boundingBox();
    if (b.x1 < view.x1 || b.x2 > view.x2 || b.y1 < view.y1 || b.y2 > view.y2) this.cy.animate({ center: { eles: e } }, { duration: 200 });
  }

  zoomBy(f: number): void {
    this.cy.zoom({ level: this.cy.zoom() * f, renderedPosition: { x: this.cy.width() / 2, y: this.cy.height() / 2 } });
  }

  setHealth(h: Health): void {
    this.health = h;
    this.mark();
  }

  /** touch shows for a while that a place's tables have changed. */
  touch(where: string): void {
    this.touched.set(where, Date.now());
    this.mark();
    setTimeout(() => this.mark(), touchShown + 50);
  }

  private mark(): void {
    const now = Date.now();
    this.cy.batch(() => {
      this.cy.nodes("[place]").forEach((n) => {
        const where = n.data("place") as string;
        n.toggleClass("sick", Boolean(this.health.places[where]) || this.health.state === "gone");
        n.toggleClass("touched", now - (this.touched.get(where) ?? 0) < touchShown);
      });
      this.cy.nodes(".device").forEach((n) => {
        n.toggleClass("sick", (this.health.places[n.data("on") as string] ?? []).some((w) => w.startsWith(`${n.data("device") as string} is down`)));
      });
    });
  }

  private selected(n: NodeSingular | undefined): void {
    this.cy.batch(() => {
      this.cy.elements(".lit").removeClass("lit");
      this.cy.elements(".dim").removeClass("dim");
      if (!this.placed?.small) this.cy.edges(".endpoint").remove();
      if (n && n.data("kind") === "service") this.light(n);
      if (n && n.data("kind") === "pod") n.connectedEdges(".endpoint").addClass("lit").sources().addClass("lit");
    });
    this.onSelect(n ? { kind: n.data("kind"), name: n.data("name") } : undefined);
  }

  /** light shows a service's way to its pods, or of large labs to their nodes. */
  private light(n: NodeSingular): void {
    const s = this.lab?.services.find((x) => x.key === n.data("name"));
    if (!s) return;
    if (!this.placed?.small) {
      const keys = new Set(s.ports.flatMap((p) => p.pods));
      const nodes = new Set(this.lab?.pods.filter((p) => keys.has(p.key)).map((p) => p.node));
      for (const name of nodes) this.cy.add({ group: "edges", classes: "endpoint", data: { source: n.id(), target: `node:${name}` } });
    }
    n.connectedEdges(".endpoint").addClass("lit").targets().addClass("lit");
  }

  private elements(): ElementDefinition[] {
    const { lab, placed } = this;
    if (!lab || !placed) return [];
    const out: ElementDefinition[] = [];
    const add = (id: string, b: Box | undefined, classes: string, data: Record<string, unknown>) => {
      if (b) out.push({ group: "nodes", data: { id, w: b.w, h: b.h, ...data }, position: center(b), classes });
    };
    const line = (source: string, target: string, classes: string) => out.push({ group: "edges", data: { source, target }, classes });
    for (const r of lab.racks) {
      add(`rack:${r.name}`, placed.racks.get(r.name), "rack", { kind: "rack", name: r.name, label: `${r.name}   ${r.subnet}${r.shape ? "   " + r.shape : ""}` });
      add(`bar:${r.name}`, placed.bars.get(r.name), "bar", { kind: "rack", name: r.name });
    }
    const size = placed.small ? "small" : "large";
    for (const n of lab.nodes) {
      const count = this.podsOf.get(n.name)?.length ?? 0;
      const master = (n.roles ?? []).includes("control-plane");
      const label = placed.small ? `${n.name}\n${n.address}` : n.name;
      add(`node:${n.name}`, placed.nodes.get(n.name), `node ${size} ${master ? "master" : ""}`, { kind: "node", name: n.name, place: n.name, label });
      if (!placed.small) {
        const b = placed.nodes.get(n.name)!;
        add(`count:${n.name}`, { x: b.x + 10, y: b.y + 46, w: b.w - 20, h: b.h - 54 }, "count", { kind: "none", name: n.name, label: `${n.address}\n${count} ${t("pods")}` });
      } else {
        add(`wire:${n.name}`, placed.wires.get(n.name), "cable", { kind: "none", name: n.name });
        const b = placed.nodes.get(n.name)!;
        const list = devicesOf(lab.mode);
        const w = (b.w - 24) / list.length;
        list.forEach((d, i) => add(`device:${n.name}/${d}`, { x: b.x + 12 + i * w + 2, y: b.y + b.h - 29, w: w - 4, h: 20 }, "device", { kind: "node", name: n.name, device: d, on: n.name, label: d }));
      }
    }
    for (const r of lab.routers) {
      add(`router:${r.name}`, placed.routers.get(r.name), "router", { kind: "router", name: r.name, place: r.name, label: r.name });
      for (const rack of r.racks) line(`router:${r.name}`, `bar:${rack}`, "wire");
    }
    add(`external:${lab.external}`, placed.external, "external", { kind: "external", name: lab.external, place: lab.external, label: lab.external });
    if (lab.racks[0]) line(`external:${lab.external}`, `bar:${lab.racks[0].name}`, "wire");
    for (const s of lab.services) {
      const ports = s.ports.map((p) => `${p.port}${p.nodePort ? ":" + p.nodePort : ""}`).join(" ");
      add(`service:${s.key}`, placed.services.get(s.key), `service ${size}`, { kind: "service", name: s.key, label: `${short(s.key.replace(/^default\//, ""), 24)}\n${s.clusterIP ?? s.type}  ${ports}` });
    }
    return out;
  }

  private soonUnfold(): void {
    if (this.placed?.small || this.folding) return;
    this.folding = window.setTimeout(() => {
      this.folding = 0;
      this.unfold();
    }, 120);
  }

  /** unfold draws the pods that there is room for, and takes the others away. */
  private unfold(): void {
    if (!this.lab || !this.placed) return;
    if (this.placed.small) {
      this.addPods(this.lab.nodes.map((n) => n.name));
      this.addEndpoints();
      return;
    }
    const want = new Set<string>();
    const chosen = this.cy.$("node:selected").first();
    if (chosen.nonempty() && chosen.data("kind") === "pod") want.add(chosen.data("on") as string);
    if (this.cy.zoom() >= podZoom) {
      const v = this.cy.extent();
      for (const [name, b] of this.placed.nodes) {
        if (want.size >= podNodes) break;
        if (b.x < v.x2 && b.x + b.w > v.x1 && b.y < v.y2 && b.y + b.h > v.y1) want.add(name);
      }
    }
    const away = [...this.unfolded].filter((n) => !want.has(n));
    this.cy.batch(() => {
      for (const n of away) {
        this.cy.nodes(`.pod[on = "${n}"]`).remove();
        this.cy.$id(`count:${n}`).removeClass("away");
        this.unfolded.delete(n);
      }
      this.addPods([...want]);
    });
    if (away.length || want.size) this.mark();
  }

  private addPods(nodes: string[]): void {
    if (!this.placed) return;
    const out: ElementDefinition[] = [];
    for (const name of nodes) {
      const b = this.placed.nodes.get(name);
      if (this.unfolded.has(name) || !b) continue;
      this.unfolded.add(name);
      const pods = this.podsOf.get(name) ?? [];
      const room = this.placed.small ? pods.length : card.large.rows * card.large.columns;
      const shown = pods.length > room ? pods.slice(0, room - 1) : pods;
      shown.forEach((p, i) => out.push(this.podElement(p, this.podBox(b, i))));
      if (shown.length < pods.length) {
        const pb = this.podBox(b, room - 1);
        out.push({ group: "nodes", classes: "pod more", data: { id: `more:${name}`, kind: "node", name, on: name, w: pb.w, h: pb.h, label: `+${pods.length - shown.length}` }, position: center(pb) });
      }
      this.cy.$id(`count:${name}`).addClass("away");
    }
    this.cy.add(out);
  }

  private podBox(b: Box, i: number): Box {
    if (this.placed?.small) {
      const c = card.small;
      return { x: b.x + 12, y: b.y + c.head + i * c.pod, w: b.w - 24, h: c.pod - 5 };
    }
    const c = card.large;
    const w = (b.w - 16) / c.columns;
    return { x: b.x + 8 + (i % c.columns) * w + 1, y: b.y + c.head + Math.floor(i / c.columns) * c.pod, w: w - 3, h: c.pod - 3 };
  }

  private podElement(p: Pod, b: Box): ElementDefinition {
    const small = this.placed?.small;
    const label = small ? `${short(podName(p.key), 17)}  ${p.address}` : short(podName(p.key), 15);
    return {
      group: "nodes", classes: `pod ${small ? "small" : "large"} ${p.system ? "system" : ""}`, position: center(b),
      data: { id: `pod:${p.key}`, kind: "pod", name: p.key, place: p.key, on: p.node, w: b.w, h: b.h, label },
    };
  }

  /** addEndpoints draws the ways from services to pods, in small labs. */
  private addEndpoints(): void {
    const out: ElementDefinition[] = [];
    for (const s of this.lab?.services ?? []) {
      for (const key of new Set(s.ports.flatMap((p) => p.pods))) {
        if (this.cy.$id(`pod:${key}`).nonempty() && this.cy.$id(`service:${s.key}`).nonempty()) {
          out.push({ group: "edges", classes: "endpoint", data: { source: `service:${s.key}`, target: `pod:${key}` } });
        }
      }
    }
    this.cy.add(out);
  }

  /** restyle takes the colours of the page, which may be light or dark. */
  restyle(): void {
    const css = getComputedStyle(document.documentElement);
    const c = (name: string) => css.getPropertyValue("--" + name).trim() || "#888";
    const font = "system-ui, DejaVu Sans, WenQuanYi Micro Hei, sans-serif";
    const box = { shape: "round-rectangle", width: "data(w)", height: "data(h)", "font-family": font, color: c("ink") };
    this.cy.style([
      { selector: "node, edge", style: { "z-index-compare": "manual" } },
      { selector: "node", style: { ...box, "min-zoomed-font-size": 5, "text-valign": "center", "text-halign": "center", "corner-radius": "8" } },
      { selector: ".rack", style: { "background-color": c("fabric"), "border-color": c("fabric-line"), "border-width": 1.5, label: "data(label)", "text-valign": "top", "text-halign": "center", "text-margin-y": 26, "font-size": 16, "font-weight": "bold", color: c("soft"), "z-index": 0, "min-zoomed-font-size": 0 } },
      { selector: ".bar", style: { "background-color": c("fabric-line"), "corner-radius": "4", "z-index": 1 } },
      { selector: ".node", style: { "background-color": c("node"), "border-color": c("node-line"), "border-width": 2, label: "data(label)", "text-wrap": "wrap", "text-valign": "top", "font-weight": "bold", "z-index": 2, "line-height": 1.25 } },
      { selector: ".node.small", style: { "font-size": 15, "text-margin-y": 46 } },
      { selector: ".node.large", style: { "font-size": 24, "text-margin-y": 36 } },
      { selector: ".node.master", style: { "border-style": "double", "border-width": 5 } },
      { selector: ".count", style: { "background-opacity": 0, label: "data(label)", "text-wrap": "wrap", "font-size": 18, "line-height": 1.2, color: c("soft"), events: "no", "z-index": 3 } },
      { selector: ".count.away", style: { display: "none" } },
      { selector: ".cable", style: { "background-color": c("fabric-line"), shape: "rectangle", events: "no", "z-index": 1 } },
      { selector: ".device", style: { "background-color": c("chip"), "border-color": c("fabric-line"), "border-width": 1, label: "data(label)", "font-size": 10.5, "corner-radius": "4", "font-family": "ui-monospace, DejaVu Sans Mono, monospace", "z-index": 4 } },
      { selector: ".device.sick", style: { "border-color": c("bad"), "border-width": 3 } },
      { selector: ".pod", style: { "background-color": c("pod"), "border-color": c("pod-line"), "border-width": 1.2, label: "data(label)", "corner-radius": "5", "z-index": 4 } },
      { selector: ".pod.small", style: { "font-size": 11.5 } },
      { selector: ".pod.large", style: { "font-size": 7.5, "border-width": 0.7, "corner-radius": "3" } },
      { selector: ".pod.system", style: { "background-color": c("chip"), "border-style": "dashed" } },
      { selector: ".pod.more", style: { "background-opacity": 0, "border-width": 0, "font-size": 8, color: c("soft") } },
      { selector: ".router", style: { "background-color": c("other"), "border-color": c("other-line"), "border-width": 2, label: "data(label)", "font-size": 15, "font-weight": "bold", shape: "round-hexagon", "z-index": 2 } },
      { selector: ".external", style: { "background-color": c("other"), "border-color": c("other-line"), "border-width": 2, "border-style": "dashed", label: "data(label)", "font-size": 14, "z-index": 2 } },
      { selector: ".service", style: { "background-color": c("kernel"), "border-color": c("kernel-line"), "border-width": 2, label: "data(label)", "text-wrap": "wrap", "font-size": 13, "line-height": 1.3, "corner-radius": "22", "z-index": 5 } },
      { selector: ".service.large", style: { "font-size": 16 } },
      { selector: "edge", style: { width: 2, "curve-style": "straight", "line-color": c("fabric-line"), "z-index": 1 } },
      { selector: ".wire", style: { "curve-style": "taxi", "taxi-direction": "downward", "taxi-turn": "-62px", "source-endpoint": "outside-to-node", "target-endpoint": "outside-to-node" } },
      { selector: ".endpoint", style: { "curve-style": "unbundled-bezier", "control-point-distances": "20", "control-point-weights": "0.5", "line-color": c("kernel-line"), width: 2.5, "target-arrow-shape": "triangle", "target-arrow-color": c("kernel-line"), "arrow-scale": 0.9, "z-index": 6, events: "no", visibility: "hidden" } },
      { selector: ".endpoint.lit, .endpoint.hover", style: { visibility: "visible" } },
      { selector: "node.lit", style: { "border-color": c("kernel-line"), "border-width": 3.5 } },
      { selector: ".touched", style: { "background-color": c("mark") } },
      { selector: ".sick", style: { "border-color": c("bad"), "border-width": 5, "border-style": "solid" } },
      { selector: ".node:selected, .pod:selected, .service:selected, .router:selected, .external:selected, .rack:selected", style: { "border-color": c("request"), "border-width": 5, "border-style": "solid" } },
      { selector: "node:active", style: { "overlay-opacity": 0.08 } },
    ] as unknown as cytoscape.StylesheetJson);
  }
}

/** How long it is shown that a place's tables have changed, ms. */
const touchShown = 6000;
