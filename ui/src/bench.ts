// Reports of the bench as bars with their intervals, one chart per workload.

import { get, type Metric, type Report, type Series, type Summary } from "./api";
import { el, fill } from "./dom";
import { t } from "./i18n";
import type { View } from "./view";

const prefixes: [number, string][] = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];

function figure(v: number, unit: string): string {
  if (!v) return "0 " + unit;
  const [f, p] = prefixes.find(([f]) => Math.abs(v) >= f) ?? prefixes[prefixes.length - 1];
  const n = v / f;
  return `${round(n)} ${p && unit === "1/s" ? p + "/s" : p + unit}`;
}

const round = (n: number): string => (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2));

/** ratio is a figure over the control's of the same rounds; ≈ where they leave open which is larger. */
function ratio(m: Metric, variant: string): string {
  if (!m.ratio) return "";
  if (m.control === variant) return t("control");
  return `×${round(m.ratio.median)}${m.ratio.confidence < 0.95 || (m.ratio.low <= 1 && m.ratio.high >= 1) ? " ≈" : ""}`;
}

/** range says what interval is drawn: of few rounds, all that they gave. */
const range = (s: Summary, unit: string): string =>
  `${figure(s.low, unit)} … ${figure(s.high, unit)}, ${s.n} ${t("rounds")}${s.confidence < 0.95 ? "" : `, ${Math.round(100 * s.confidence)} %`}`;

/** An interval longer than this, as a multiple of the largest median, is cut off: else one disturbed round hides all others. */
const longest = 2;

export class BenchView implements View {
  readonly root = el("section.benchview");
  private reports?: Report[];
  private at = 0;

  show(): void {
    this.draw();
    if (!this.reports) {
      void get<Report[]>("/api/reports").then((r) => {
        this.reports = r;
        this.draw();
      }, () => undefined);
    }
  }

  private draw(): void {
    const r = this.reports?.[this.at];
    if (!r) {
      fill(this.root, el("div.bar", {}, el("h2", {}, t("Bench"))), el("p.empty", {}, t("No report is open. Start the page with --report FILE; `slipway bench --save FILE` writes one.")));
      return;
    }
    const pick = el("select", { onchange: (e: Event) => { this.at = (e.target as HTMLSelectElement).selectedIndex; this.draw(); } }, this.reports!.map((x, i) => el("option", { selected: i === this.at }, x.file)));
    const c = r.conditions;
    fill(
      this.root,
      el("div.bar", {}, el("h2", {}, t("Bench")), pick, el("span.soft", {}, `${new Date(r.started).toLocaleString()} · ${c.cpus} × ${c.cpu} · ${c.kernel} · ${t("load before")} ${c.loadBefore.toFixed(1)}`)),
      el("div.charts", {},
        el("div.about", {},
          el("p.soft", {}, t("Bars are medians; the line is the interval of the median (of fewer than six rounds: from the lowest to the highest), cut off with an arrow where it is long; × is the ratio to the control in the same rounds, ≈ if they leave open which is larger.")),
          (r.warnings ?? []).map((w) => el("p.odd", {}, w))),
        this.groups(r).map(([title, list]) => this.chart(title, list))),
    );
  }

  /** groups are what can be compared: one workload on one path to one kind of target, or without any lab's network. */
  private groups(r: Report): [string, Series[]][] {
    const out = new Map<string, Series[]>();
    for (const s of r.series) {
      const p = Object.entries(s.params ?? {}).map(([k, v]) => `${k} ${v}`).join(" ");
      const key = [s.workload, s.variant === s.path ? t("for comparison") : s.path, s.target, p].filter(Boolean).join(" · ");
      out.set(key, [...(out.get(key) ?? []), s]);
    }
    return [...out].filter(([, l]) => l.some((s) => this.metric(s)));
  }

  private metric(s: Series): Metric | undefined {
    return s.metrics?.find((m) => m.name === s.main) ?? s.metrics?.[0];
  }

  private chart(title: string, list: Series[]): HTMLElement {
    const shown = list.map((s) => ({ s, m: this.metric(s)! })).filter((x) => x.m);
    const most = Math.max(...shown.map((x) => x.m.summary.median), 1e-12);
    const top = Math.max(most, Math.min(longest * most, Math.max(...shown.map((x) => x.m.summary.high))));
    const at = (v: number) => `${Math.min(100, (100 * v) / top)}%`;
    const m = shown[0].m;
    return el("figure.chart", {},
      el("figcaption", {}, el("b", {}, title), el("span.soft", {}, ` ${m.name}${m.better ? ", " + t(m.better === "higher" ? "higher is better" : "lower is better") : ""}`)),
      el("div.bars", {}, shown.map(({ s, m }) => {
        const fillBar = el("div.fill");
        fillBar.style.width = at(m.summary.median);
        const line = el(m.summary.high > top ? "div.range.cut" : "div.range");
        line.style.left = at(m.summary.low);
        line.style.right = `calc(100% - ${at(m.summary.high)})`;
        return [el("span.name", {}, s.variant), el("div.track", { title: range(m.summary, m.unit) }, fillBar, line), el("span.figure", {}, figure(m.summary.median, m.unit)), el("span.ratio", {}, ratio(m, s.variant))];
      })));
  }
}
