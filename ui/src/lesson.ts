// Lessons and drills: the list, and the one that is open beside any view.

import { get, post, type CheckReport, type Explained, type Hint, type Scenario, type ScenarioLine } from "./api";
import { el, fill, type Child } from "./dom";
import { getLang, t } from "./i18n";
import { markdown } from "./markdown";
import type { Page, View } from "./view";

const lang = () => `lang=${getLang()}`;

export class LessonDock {
  readonly root = el("aside.dock");
  private name = "";
  private now?: Scenario;
  private step = 0;
  private busy = "";
  private report?: CheckReport;
  private hints: Hint[] = [];
  private ran: { title: string; list: Explained[] }[] = [];

  constructor(readonly page: Page) {
    this.root.hidden = true;
  }

  toggle(): void {
    if (!this.name) this.page.go("Lessons");
    else this.root.hidden = !this.root.hidden;
  }

  /** open shows a scenario, or the one that is open again. */
  async open(name?: string): Promise<void> {
    if (name && name !== this.name) {
      this.name = name;
      this.step = 0;
      this.forget();
    }
    if (!this.name) return;
    if (name) this.root.hidden = false;
    await this.read();
  }

  private forget(): void {
    this.report = undefined;
    this.hints = [];
    this.ran = [];
  }

  private async read(): Promise<void> {
    try {
      this.now = await get<Scenario>(`/api/scenarios/${encodeURIComponent(this.name)}?${lang()}`);
      this.draw();
    } catch (e) {
      this.page.fail(e);
    }
  }

  /** act does something with the scenario and reads it again. */
  private async act<T>(action: string, body: unknown, then: (v: T) => void): Promise<void> {
    if (this.busy) return;
    this.busy = action;
    this.draw();
    try {
      then(await post<T>(`/api/scenarios/${encodeURIComponent(this.name)}/${action}?${lang()}`, body));
    } catch (e) {
      this.page.fail(e);
    } finally {
      this.busy = "";
      await this.read();
    }
  }

  private start = () => this.act<{ lab: string }>("start", {}, (d) => {
    this.forget();
    this.page.use(d.lab);
    this.page.go("Map");
  });

  private reset = () => this.act<{ lab: string }>("reset", {}, () => {
    this.forget();
    this.step = 0;
    this.page.use("");
  });

  private draw(): void {
    const s = this.now;
    if (!s) return;
    const running = Boolean(s.state?.ready);
    const may = this.page.lab()?.allowChange ?? true;
    const b = (action: string, label: string, f: () => void, main = false, change = false) =>
      el(main ? "button.main" : "button", { id: "lesson-" + action, disabled: Boolean(this.busy) || (change && !may), title: change && !may ? t("The page may only look: start it with --allow-change to do this.") : null, onclick: f }, this.busy === action ? t("working…") : t(label));
    const keep = this.root.querySelector(".dockbody")?.scrollTop ?? 0;
    const where = s.state?.passedAt ? el("span.good", {}, "✓ " + t("passed")) : running ? el("span", {}, t("running")) : el("span.soft", {}, t("not started"));
    fill(
      this.root,
      el("div.dockhead", {}, el("h2", {}, s.title), el("button", { title: `${t("close")} (x)`, "aria-label": t("close"), onclick: () => this.toggle() }, "×")),
      el("p.soft", {}, `${t(s.kind)} · ${s.mode} · ${s.minutes} ${t("minutes")} · ${t("level")} ${"●".repeat(s.level)}${"○".repeat(Math.max(0, 3 - s.level))} · `, where),
      el("div.acts", {},
        !running && b("start", "start", () => void this.start(), true, true),
        running && s.checks.length > 0 && b("check", "check", () => void this.act<CheckReport>("check", {}, (r) => (this.report = r)), true),
        running && s.hints > 0 && b("hint", "hint", () => void this.act<Hint>("hint", {}, (h) => { if (!this.hints.some((x) => x.n === h.n)) this.hints.push(h); })),
        running && s.kind === "drill" && b("solve", "solution", () => void this.act<Explained[]>("solve", {}, (l) => this.ran.push({ title: t("solution"), list: l })), false, true),
        running && b("reset", "reset", () => void this.reset(), false, true)),
      !may && el("p.odd", {}, t("The page may only look: start it with --allow-change to do this.")),
      el("div.dockbody", {},
        this.checks(s), this.hints.map((h) => el("div.hintbox", {}, el("b", {}, `${t("hint")} ${h.n}/${h.of}`), markdown(h.text))), markdown(s.prose), this.steps(s, running, may), this.ran.map((r) => this.outcome(r.title, r.list))),
    );
    this.root.querySelector(".dockbody")!.scrollTop = keep;
  }

  private checks(s: Scenario): Child {
    if (!s.checks.length) return null;
    return el("ul.checks", {}, s.checks.map((name, i) => {
      const c = this.report?.checks[i];
      return el(`li.${c ? (c.ok ? "good" : "bad") : "soft"}`, {}, el("b", {}, c ? (c.ok ? "✓ " : "✗ ") : "○ "), name, c && !c.ok ? el("div.soft", {}, el("div", {}, `${t("want")}: ${c.want}`), el("div", {}, `${t("got")}: ${c.got}`)) : null);
    }));
  }

  private steps(s: Scenario, running: boolean, may: boolean): Child {
    if (!s.steps.length) return null;
    const step = s.steps[Math.min(this.step, s.steps.length - 1)];
    return el("section.stepbox", {},
      el("nav.stepnav", {}, s.steps.map((x, i) => el("button", { "aria-current": String(i === this.step), title: x.title, onclick: () => { this.step = i; this.draw(); } }, (s.state?.step ?? 0) > i ? `✓ ${i + 1}` : String(i + 1)))),
      el("h3", {}, `${t("step")} ${this.step + 1}: ${step.title}`), markdown(step.prose),
      step.parts.map((p) => [p.why && el("p.soft", {}, p.why), p.commands.length > 0 && el("pre", {}, p.commands.map((c) => "$ " + c).join("\n"))]),
      el("div.acts", {},
        el("button.main", { id: "lesson-step", disabled: Boolean(this.busy) || !running || !may, onclick: () => void this.act<Explained[]>("step", { step: this.step }, (l) => (this.ran = [{ title: step.title, list: l }])) }, this.busy === "step" ? t("working…") : t("run")),
        this.step + 1 < s.steps.length && el("button", { id: "lesson-next", onclick: () => { this.step++; this.ran = []; this.draw(); } }, t("next step"))));
  }

  private outcome(title: string, list: Explained[]): HTMLElement {
    return el("section.ran", {}, el("h3", {}, title), list.map((x) => [x.why && el("p", {}, x.why), (x.ran ?? []).map((r) => r.drawing ? drawing(r.command, r.drawing) : el("pre", {}, `$ ${r.command}\n${r.stdout}${r.stderr ?? ""}`.trimEnd()))]));
  }
}

/** drawing is the lab as the program draws it: an image, so that nothing of it becomes a part of the page. */
function drawing(command: string, svg: string): Child {
  return [el("pre", {}, "$ " + command), el("img.drawing", { src: "data:image/svg+xml," + encodeURIComponent(svg), alt: command })];
}

export class LessonView implements View {
  readonly root = el("section.lessonview");
  private list?: ScenarioLine[];

  constructor(readonly page: Page, readonly dock: LessonDock) {}

  show(): void {
    this.draw();
    void get<ScenarioLine[]>(`/api/scenarios?${lang()}`).then((l) => {
      this.list = l;
      this.draw();
    }, (e) => this.page.fail(e));
  }

  private draw(): void {
    const part = (kind: string) => {
      const list = (this.list ?? []).filter((s) => s.kind === kind).sort((a, b) => a.level - b.level || a.title.localeCompare(b.title));
      return list.length > 0 && [el("h3", {}, `${t(kind)} (${list.length})`), el("div.cards", {}, list.map((s) =>
        el("button.card", { "data-name": s.name, onclick: () => void this.open(s) }, el("b", {}, s.title), el("span.soft", {}, `${s.mode}${s.components && s.components !== "none" ? " · " + s.components : ""} · ${s.minutes} ${t("minutes")} · ${"●".repeat(s.level)}${"○".repeat(Math.max(0, 3 - s.level))}`), s.running && el("span.good", {}, "● " + t("running")))))];
    };
    fill(this.root, el("div.bar", {}, el("h2", {}, t("Lessons"))), el("div.lessons", {}, this.list ? [part("lesson"), part("drill")] : el("p.empty", {}, t("working…"))));
  }

  private async open(s: ScenarioLine): Promise<void> {
    await this.dock.open(s.name);
    if (s.running) this.page.use("sc-" + s.name);
  }
}
