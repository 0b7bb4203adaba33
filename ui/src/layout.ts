// Where things stand on the map. A lab is known: racks with nodes in them,
// routers between racks, services above. So no layout has to be searched for,
// a hundred nodes are placed in a millisecond, and what is there keeps its
// place when something else comes or goes.

import type { Lab, LabNode, Pod } from "./api";

export interface Box { x: number; y: number; w: number; h: number } // top left corner and size

export interface Placed {
  small: boolean; // every pod has room on the map
  racks: Map<string, Box>;
  bars: Map<string, Box>; // the switch of each rack
  wires: Map<string, Box>; // from the switch to a node
  nodes: Map<string, Box>;
  routers: Map<string, Box>;
  services: Map<string, Box>;
  external?: Box;
}

/** What a card needs, in map units. */
export const card = {
  small: { w: 216, head: 50, pod: 26, device: 34 },
  large: { w: 176, head: 40, pod: 15, rows: 4, columns: 2 },
  gap: 22,
  pad: 20,
  rackHead: 54,
};

const smallNodes = 16;
const smallPods = 80;

export function place(lab: Lab, aspect: number): Placed {
  const small = lab.nodes.length <= smallNodes && lab.pods.length <= smallPods;
  const out: Placed = { small, racks: new Map(), bars: new Map(), wires: new Map(), nodes: new Map(), routers: new Map(), services: new Map() };
  const podsOn = countPods(lab.pods);
  const racks = lab.racks.map((r) => sizeRack(lab.nodes.filter((n) => n.rack === r.name), podsOn, small, lab.racks.length));
  let best: { columns: number; fit: number } = { columns: 1, fit: 0 };
  for (let columns = 1; columns <= racks.length; columns++) {
    const { w, h } = rows(racks, columns);
    const fit = Math.min(aspect / w, 1 / (h + (lab.services.length ? 190 : 90)));
    if (fit > best.fit * 0.85) best = { columns, fit: Math.max(fit, best.fit) }; // rather beside each other
  }
  const total = rows(racks, best.columns);
  const width = Math.max(total.w, small ? 700 : 1500);
  const shift = (width - total.w) / 2;
  let top = 0;
  if (lab.services.length && lab.services.length <= 40) top = placeServices(lab, out, width, small);
  const routerRow = top;
  top += placeRouters(lab, out, routerRow, width, shift);
  let x = shift;
  let rowHeight = 0;
  racks.forEach((r, i) => {
    if (i % best.columns === 0) {
      if (i) top += rowHeight + 60;
      x = shift;
      rowHeight = 0;
    }
    const name = lab.racks[i].name;
    out.racks.set(name, { x, y: top, w: r.w, h: r.h });
    out.bars.set(name, { x: x + card.pad, y: top + card.rackHead - 20, w: r.w - 2 * card.pad, h: 8 });
    const bar = out.bars.get(name)!;
    for (const [node, b] of r.inside) {
      const at = { ...b, x: b.x + x, y: b.y + top };
      out.nodes.set(node, at);
      if (small && b.y < card.rackHead + 20) out.wires.set(node, { x: at.x + at.w / 2 - 1.5, y: bar.y + bar.h, w: 3, h: at.y - bar.y - bar.h });
    }
    x += r.w + 60;
    rowHeight = Math.max(rowHeight, r.h);
  });
  return out;
}

function countPods(pods: Pod[]): Map<string, number> {
  const out = new Map<string, number>();
  for (const p of pods) out.set(p.node, (out.get(p.node) ?? 0) + 1);
  return out;
}

interface Sized { w: number; h: number; inside: Map<string, Box> }

function sizeRack(nodes: LabNode[], podsOn: Map<string, number>, small: boolean, racks: number): Sized {
  const w = small ? card.small.w : card.large.w;
  const h = small
    ? card.small.head + Math.max(1, ...nodes.map((n) => podsOn.get(n.name) ?? 0)) * card.small.pod + card.small.device
    : card.large.head + card.large.rows * card.large.pod + 8;
  const wanted = small ? (racks > 1 ? 3 : 4) : Math.ceil(Math.sqrt(nodes.length * (racks > 1 ? 1 : 1.5)));
  const columns = Math.max(1, Math.min(wanted, nodes.length));
  const inside = new Map<string, Box>();
  nodes.forEach((n, i) => {
    inside.set(n.name, {
      x: card.pad + (i % columns) * (w + card.gap),
      y: card.rackHead + 14 + Math.floor(i / columns) * (h + card.gap),
      w,
      h,
    });
  });
  const lines = Math.max(1, Math.ceil(nodes.length / columns));
  return { w: 2 * card.pad + columns * (w + card.gap) - card.gap, h: card.rackHead + 14 + lines * (h + card.gap) - card.gap + card.pad, inside };
}

function rows(racks: Sized[], columns: number): { w: number; h: number } {
  let w = 0;
  let h = 0;
  for (let i = 0; i < racks.length; i += columns) {
    const line = racks.slice(i, i + columns);
    w = Math.max(w, line.reduce((a, r) => a + r.w + 60, -60));
    h += Math.max(...line.map((r) => r.h)) + (i ? 60 : 0);
  }
  return { w: Math.max(w, 1), h: Math.max(h, 1) };
}

/** placeServices sets them in rows above everything and returns the height used. */
function placeServices(lab: Lab, out: Placed, width: number, small: boolean): number {
  const w = small ? 190 : 230;
  const h = small ? 44 : 54;
  const perRow = Math.max(1, Math.min(lab.services.length, Math.floor((width + 24) / (w + 24))));
  lab.services.forEach((s, i) => {
    const line = Math.floor(i / perRow);
    const inLine = Math.min(perRow, lab.services.length - line * perRow);
    const left = (width - inLine * (w + 24) + 24) / 2;
    out.services.set(s.key, { x: left + (i % perRow) * (w + 24), y: line * (h + 18), w, h });
  });
  return Math.ceil(lab.services.length / perRow) * (h + 18) + 40;
}

/** placeRouters sets routers, and the machine outside, in a row. */
function placeRouters(lab: Lab, out: Placed, top: number, width: number, left: number): number {
  const w = 130;
  const h = 42;
  out.external = { x: left, y: top, w: 130, h };
  lab.routers.forEach((r, i) => {
    const n = lab.routers.length;
    out.routers.set(r.name, { x: width / 2 - (n * (w + 30) - 30) / 2 + i * (w + 30), y: top, w, h });
  });
  return h + 44;
}
