// Building elements without markup in strings, so that no text becomes markup.

export type Child = Node | string | number | null | undefined | false | Child[];

/** el makes an element: "div.card.big" with attributes, handlers and children. */
export function el<K extends keyof HTMLElementTagNameMap>(
  spec: K | `${K}.${string}`,
  props?: Record<string, unknown> | null,
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const [tag, ...classes] = spec.split(".");
  const e = document.createElement(tag) as HTMLElementTagNameMap[K];
  if (classes.length) e.className = classes.join(" ");
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v as EventListener);
    else if (k === "value") (e as unknown as HTMLInputElement).value = String(v);
    else e.setAttribute(k, v === true ? "" : String(v));
  }
  append(e, children);
  return e;
}

export function append(e: Element, children: Child[]): void {
  for (const c of children) {
    if (Array.isArray(c)) append(e, c);
    else if (c === null || c === undefined || c === false || c === "") continue;
    else e.append(typeof c === "number" ? String(c) : c);
  }
}

export function fill(e: Element, ...children: Child[]): void {
  e.replaceChildren();
  append(e, children);
}

const svgNS = "http://www.w3.org/2000/svg";

/** svg makes an SVG element. */
export function svg(tag: string, attrs: Record<string, string | number>, ...children: (Node | string)[]): SVGElement {
  const e = document.createElementNS(svgNS, tag);
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, String(v));
  e.append(...children);
  return e;
}

/** icon is a line drawing in a box of 24. */
export function icon(path: string): SVGElement {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: path }));
}
