// Markdown as lessons use it, as elements: headings, paragraphs, lists, tables,
// code, emphasis. No markup of the text becomes markup of the page.

import { el, type Child } from "./dom";

export function markdown(text: string): HTMLElement {
  const out = el("div.md");
  const lines = text.replace(/\r/g, "").split("\n");
  for (let i = 0; i < lines.length; ) {
    const l = lines[i];
    const head = /^(#{1,4}) (.*)/.exec(l);
    const fence = /^\s*```(\w*)/.exec(l);
    if (!l.trim()) i++;
    else if (fence) {
      const body: string[] = [];
      for (i++; i < lines.length && !/^\s*```/.test(lines[i]); i++) body.push(lines[i]);
      i++;
      out.append(el("pre", { "data-kind": fence[1] || null }, body.join("\n")));
    } else if (head) {
      out.append(el(head[1].length < 3 ? "h3" : "h4", {}, inline(head[2])));
      i++;
    } else if (/^\s*([-*]|\d+\.) /.test(l)) {
      const list = el(/^\s*\d/.test(l) ? "ol" : "ul");
      for (; i < lines.length && lines[i].trim() && (/^\s*([-*]|\d+\.) /.test(lines[i]) || /^\s+/.test(lines[i])); i++) {
        if (/^\s*([-*]|\d+\.) /.test(lines[i])) list.append(el("li", {}, inline(lines[i].replace(/^\s*([-*]|\d+\.) /, ""))));
        else list.lastElementChild?.append(" ", ...inline(lines[i].trim()) as Node[]);
      }
      out.append(list);
    } else if (l.startsWith("|")) {
      const rows: string[][] = [];
      for (; i < lines.length && lines[i].startsWith("|"); i++) rows.push(lines[i].replace(/^\||\|\s*$/g, "").split("|").map((c) => c.trim()));
      const [first, ...rest] = rows.filter((r) => !r.every((c) => /^:?-+:?$/.test(c)));
      out.append(el("table", {}, el("thead", {}, el("tr", {}, first.map((c) => el("th", {}, inline(c))))), el("tbody", {}, rest.map((r) => el("tr", {}, r.map((c) => el("td", {}, inline(c))))))));
    } else {
      const body: string[] = [];
      for (; i < lines.length && lines[i].trim() && !/^(#{1,4} |\s*```|\s*([-*]|\d+\.) |\|)/.test(lines[i]); i++) body.push(lines[i]);
      if (!body.length) body.push(lines[i++]);
      out.append(el("p", {}, inline(body.join(/[\u4e00-\u9fff]$/.test(body[0]) ? "" : " "))));
    }
  }
  return out;
}

function inline(s: string): Child[] {
  const out: Child[] = [];
  let rest = s;
  const mark = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\([^)]*\)/;
  for (let m = mark.exec(rest); m; m = mark.exec(rest)) {
    out.push(document.createTextNode(rest.slice(0, m.index)));
    out.push(m[1] !== undefined ? el("code", {}, m[1]) : m[2] !== undefined ? el("b", {}, m[2]) : m[3] !== undefined ? el("em", {}, m[3]) : el("span", {}, m[4]));
    rest = rest.slice(m.index + m[0].length);
  }
  out.push(document.createTextNode(rest));
  return out;
}
