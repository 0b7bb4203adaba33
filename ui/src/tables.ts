// The tables of a place: devices, routes, neighbours, FDB, leases, with what the
// last change touched.

import { get, type Section, type Tables } from "./api";
import { el, fill } from "./dom";
import { t } from "./i18n";
import type { Page, View } from "./view";

export class TablesView implements View {
  readonly root = el("section.tablesview");
  place = "";
  private now?: Tables;
  private folded = new Set<string>();
  private again = 0;

  constructor(private readonly page: Page) {}

  show(): void {
    const l = this.page.lab();
    if (!l) return;
    if (!this.places().includes(this.place) && !l.pods.some((p) => p.key === this.place)) this.place = l.nodes[0]?.name ?? "";
    this.page.watch({ table: this.place });
    this.draw();
    void this.read();
  }

  lab(): void {
    if (!this.root.hidden) this.show();
  }

  touched(place: string): void {
    if (this.root.hidden || place !== this.place) return;
    clearTimeout(this.again);
    this.again = window.setTimeout(() => void this.read(), 50);
  }

  key(e: KeyboardEvent): boolean {
    const all = this.places();
    const by = e.key === "n" ? 1 : e.key === "N" ? -1 : 0;
    if (!by || !all.length) return false;
    this.place = all[(all.indexOf(this.place) + by + all.length) % all.length];
    this.show();
    return true;
  }

  private places(): string[] {
    const l = this.page.lab();
    return l ? [...l.nodes.map((n) => n.name), ...l.routers.map((r) => r.name), l.external] : [];
  }

  private async read(): Promise<void> {
    const place = this.place;
    try {
      const got = await get<Tables>("/api/tables/" + place.split("/").map(encodeURIComponent).join("/"));
      if (place !== this.place) return;
      this.now = got;
      this.draw();
    } catch (e) {
      this.page.fail(e);
    }
  }

  private draw(): void {
    const l = this.page.lab();
    if (!l) return;
    const options = this.places().map((p) => el("option", { value: p, selected: p === this.place }, p));
    if (!this.places().includes(this.place)) options.unshift(el("option", { value: this.place, selected: true }, this.place));
    const pick = el("select", { "aria-label": t("node"), onchange: (e: Event) => { this.place = (e.target as HTMLSelectElement).value; this.show(); } }, options);
    const now = this.now?.place === this.place ? this.now : undefined;
    const at = now?.changedAt ? new Date(now.changedAt).toLocaleTimeString() : "";
    const keep = this.root.querySelector(".sections")?.scrollTop ?? 0;
    fill(
      this.root,
      el("div.bar", {}, el("h2", {}, t("Tables")), pick, el("span.soft", {}, at ? `${t("last change")} ${at}` : t("no change seen yet")),
        el("span.grow"), el("span.touch.added", {}, t("added")), el("span.touch.changed", {}, t("changed")), el("span.touch.removed", {}, t("removed"))),
      el("div.sections", {}, now?.sections.filter((s) => s.rows?.length).map((s) => this.section(s))),
    );
    this.root.querySelector(".sections")!.scrollTop = keep;
  }

  private section(s: Section): HTMLElement {
    const touched = (s.rows ?? []).filter((r) => r.touch).length;
    const rows = (s.rows ?? []).map((r) =>
      el(`tr.${r.touch ?? "same"}`, { "data-key": r.key }, r.cells.map((c, i) => {
        const was = r.was?.[i];
        return el("td", {}, was !== undefined && was !== c ? [el("del", {}, was), " "] : null, c);
      })));
    const d = el("details.table", { open: !this.folded.has(s.name), id: "section-" + s.name },
      el("summary", {}, el("h3", {}, t(s.name)), el("span.soft", {}, ` ${s.rows?.length ?? 0}`), touched ? el("span.touch.changed", {}, String(touched)) : null),
      el("table", {}, el("thead", {}, el("tr", {}, s.columns.map((c) => el("th", {}, t(c))))), el("tbody", {}, rows)));
    d.addEventListener("toggle", () => { if (d.open) this.folded.delete(s.name); else this.folded.add(s.name); });
    return d;
  }
}
