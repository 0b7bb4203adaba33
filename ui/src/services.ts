// A service as one node's rules have it: the shares of its endpoints, and the
// tree of rules with the probabilities and live counters.

import type { Chain, PortView, Rule, Service, ServiceView } from "./api";
import { el, fill } from "./dom";
import { t } from "./i18n";
import { podName } from "./map";
import type { Page, View } from "./view";

const viaNames: Record<string, string> = { clusterip: "cluster IP", nodeport: "node port", external: "external IP", loadbalancer: "load balancer IP" };

export class ServicesView implements View {
  readonly root = el("section.servicesview");
  key_ = "";
  private node = "";
  private now?: ServiceView;
  private base = new Map<string, number>(); // packets of each rule when it was first shown
  private before = new Map<string, number>(); // at the last update
  private verbatim = false;
  private words = false;

  constructor(private readonly page: Page) {}

  show(): void {
    const l = this.page.lab();
    if (!l) return;
    const all = l.services.filter((s) => s.rules);
    if (!all.some((s) => s.key === this.key_)) this.key_ = busiest(all)?.key ?? "";
    if (this.now && (this.now.service !== this.key_ || (this.node && this.now.node !== this.node))) this.forget();
    if (this.key_) this.page.watch({ service: this.key_, node: this.node });
    this.draw();
  }

  lab(): void {
    if (!this.root.hidden) this.show();
  }

  private forget(): void {
    this.now = undefined;
    this.base.clear();
    this.before.clear();
  }

  service(v: ServiceView): void {
    if (this.root.hidden) return;
    if (v.error) {
      this.page.fail(v.error);
      return;
    }
    if (v.service !== this.key_) return;
    this.now = v;
    this.draw();
  }

  key(e: KeyboardEvent): boolean {
    const all = this.page.lab()?.services.filter((s) => s.rules).map((s) => s.key) ?? [];
    if (e.key === "n" || e.key === "N") {
      if (!all.length) return true;
      this.key_ = all[(all.indexOf(this.key_) + (e.key === "n" ? 1 : -1) + all.length) % all.length];
      this.show();
      return true;
    }
    return false;
  }

  private draw(): void {
    const l = this.page.lab();
    if (!l) return;
    const all = l.services.filter((s) => s.rules);
    const pick = el("select", { "aria-label": t("service"), onchange: (e: Event) => { this.key_ = (e.target as HTMLSelectElement).value; this.show(); } }, all.map((s) => el("option", { value: s.key, selected: s.key === this.key_ }, s.key)));
    const node = el("select", { "aria-label": t("as node"), onchange: (e: Event) => { this.node = (e.target as HTMLSelectElement).value; this.show(); } }, (this.now?.nodes ?? []).map((n) => el("option", { value: n, selected: n === this.now?.node }, n)));
    const check = (id: string, label: string, on: boolean, f: (v: boolean) => void) => el("label.check", {}, el("input", { type: "checkbox", id, checked: on, onchange: (e: Event) => { f((e.target as HTMLInputElement).checked); this.draw(); } }), t(label));
    const focus = document.activeElement?.id;
    const keep = this.root.querySelector(".tree")?.scrollTop ?? 0;
    fill(
      this.root,
      el("div.bar", {}, el("h2", {}, t("Services")), pick, el("span.soft", {}, t("as node")), node, el("span.soft", {}, this.now?.program ?? ""), el("span.grow"),
        check("verbatim", "every rule", this.verbatim, (v) => (this.verbatim = v)), check("words", "in words", this.words, (v) => (this.words = v))),
      !all.length ? el("p.empty", {}, t("no service has rules")) : el("div.tree", {}, this.now?.ports.map((p, i) => this.port(p, i)) ?? el("p.empty", {}, t("working…"))),
    );
    const tree = this.root.querySelector(".tree");
    if (tree) tree.scrollTop = keep;
    if (focus) document.getElementById(focus)?.focus();
    this.remember();
  }

  private remember(): void {
    this.each((id, r) => {
      if (r.packets === undefined) return;
      if (!this.base.has(id) || r.packets < this.base.get(id)!) this.base.set(id, r.packets);
      this.before.set(id, r.packets);
    });
  }

  private each(f: (id: string, r: Rule) => void): void {
    for (const p of this.now?.ports ?? []) {
      for (const e of p.entries ?? []) f(`${p.name}/${e.in}/${e.rule.text}`, e.rule);
      for (const c of p.chains ?? []) for (const r of c.rules ?? []) f(`${p.name}/${c.name}/${r.text}`, r);
    }
  }

  private port(p: PortView, i: number): HTMLElement {
    const chains = new Map((p.chains ?? []).map((c) => [c.name, c]));
    const drawn = new Set<string>();
    const words = this.now?.explain.ports[i]?.parts ?? [];
    return el("section.port", {},
      el("h3", {}, p.name, el("small", {}, ` ${p.port}/${p.protocol}`)),
      this.shares(p, chains),
      this.words && el("div.words", {}, words.map((w) => [el("h4", {}, w.title), el("ol", {}, w.steps.map((s) => el("li", {}, s)))])),
      el("div.rule.heads", {}, el("span"), el("span.own", {}, t("own")), el("span.eff", {}, t("effective")), el("span.pkts", {}, t("packets"))),
      el("ul.rules", {},
        (p.entries ?? []).map((e) => {
          const where = e.address ? `${viaNames[e.via] ?? e.via} ${e.address}:${e.port}` : `${viaNames[e.via] ?? e.via} ${e.port}`;
          return el("li", {}, this.rule(`${p.name}/${e.in}/${e.rule.text}`, e.rule, e.in, where), this.chain(p, chains, drawn, e.rule.target));
        }),
        (p.refusals ?? []).map((e) => el("li", {}, this.rule("", e.rule, e.in, e.rule.does.toUpperCase()))),
        !(p.entries ?? []).length && !(p.refusals ?? []).length && el("li", {}, t("no rules"))));
  }

  /** shares holds what the rules say against what their counters counted. */
  private shares(p: PortView, chains: Map<string, Chain>): HTMLElement | false {
    const main = (p.chains ?? []).find((c) => c.role === "all endpoints") ?? (p.chains ?? []).find((c) => c.role === "this node's endpoints");
    const rules = (main?.rules ?? []).filter((r) => r.endpoint && r.effective !== undefined && chains.has(r.target ?? ""));
    if (!main || !rules.length) return false;
    const counted = rules.map((r) => Math.max(0, (r.packets ?? 0) - (this.base.get(`${p.name}/${main.name}/${r.text}`) ?? r.packets ?? 0)));
    const sum = counted.reduce((a, b) => a + b, 0);
    const bar = (cls: string, share: number) => {
      const e = el(`div.${cls}`);
      e.style.width = `${100 * share}%`;
      return el("div.track", {}, e);
    };
    return el("div.shares", {},
      el("span.h", {}, t("share of new connections")), el("span.h", {}, t("by the rules")), el("span.h"), el("span.h", {}, `${t("counted since shown")}: ${sum}`), el("span.h"),
      rules.map((r, i) => [
        el("span", { title: r.endpoint!.pod ?? "" }, r.endpoint!.pod ? podName(r.endpoint!.pod) : r.endpoint!.address, el("small", {}, ` ${r.endpoint!.address}${r.endpoint!.node ? " · " + r.endpoint!.node : ""}`)),
        bar("rulesbar", r.effective!), el("b", {}, percent(r.effective!)),
        bar("countbar", sum ? counted[i] / sum : 0), el("b", {}, sum ? `${percent(counted[i] / sum)} (${counted[i]})` : "–"),
      ]));
  }

  private chain(p: PortView, chains: Map<string, Chain>, drawn: Set<string>, name?: string): HTMLElement | false {
    const c = name ? chains.get(name) : undefined;
    if (!c) return false;
    if (drawn.has(c.name)) return el("p.again", {}, `↑ ${c.name}`);
    drawn.add(c.name);
    const list = c.rules ?? [];
    // Affinity's rules come before those that share out and lead to the same chains, which are drawn there.
    const again = (r: Rule, i: number) => list.slice(i + 1).some((x) => x.target !== undefined && x.target === r.target);
    return el("ul", {}, list.map((r, i) => el("li", {}, this.rule(`${p.name}/${c.name}/${r.text}`, r, "", ""), !again(r, i) && this.chain(p, chains, drawn, r.target))));
  }

  private rule(id: string, r: Rule, where: string, more: string): HTMLElement {
    const moved = r.packets !== undefined && this.before.has(id) && this.before.get(id) !== r.packets;
    const when = r.when?.length ? el("span.when", {}, r.when.join(" ") + ": ") : null;
    const share = el("i.share");
    if (r.effective !== undefined) share.style.width = `${100 * r.effective}%`;
    return el("div.rule", { title: r.text },
      el("span.what", {}, where && el("span.in", {}, where + " "), more && el("b", {}, more + " "), when, does(r), r.endpoint && r.does === "dnat" ? el("span.pod", {}, ` ${r.endpoint.pod ? podName(r.endpoint.pod) : ""} ${r.endpoint.node ? "· " + r.endpoint.node : ""}`) : null),
      el("span.own", {}, r.own !== undefined ? `${fraction(r.own)}${r.last ? ` (${t("the rest")})` : ""}` : ""),
      el("span.eff", {}, r.effective !== undefined ? [share, el("b", {}, percent(r.effective))] : null),
      el(`span.pkts.${moved ? "moved" : "still"}`, {}, r.packets !== undefined ? String(r.packets) : ""),
      this.verbatim && el("code.verbatim", {}, r.text));
  }
}

function does(r: Rule): string {
  if (r.unknown) return "?";
  switch (r.does) {
    case "mark": return "masquerade mark";
    case "dnat": return `DNAT → ${r.endpoint?.address ?? ""}`;
    case "jump": return `→ ${r.target ?? ""}`;
    case "remember": return "remember the client";
    default: return r.does.toUpperCase();
  }
}

/** busiest is the service with the most endpoints: there is most to see. */
export function busiest(all: Service[]): Service | undefined {
  const n = (s: Service) => Math.max(0, ...s.ports.map((p) => p.pods.length)) + (s.key.startsWith("kube-system/") ? 0 : 0.5);
  return [...all].sort((a, b) => n(b) - n(a))[0];
}

const percent = (p: number): string => `${(100 * p).toFixed(p > 0.9995 || p === 0 ? 0 : 1)} %`;

/** fraction writes 1/3 for 0.33333: the kernel keeps 31 bits of a probability. */
function fraction(p: number): string {
  if (p === 0 || Math.abs(p - 1) < 2e-9) return String(Math.round(p));
  for (let d = 2; d < 1000; d++) {
    const n = Math.round(p * d);
    if (n >= 1 && Math.abs(p - n / d) < 2e-9) return `${n}/${d}`;
  }
  return p.toFixed(4);
}
