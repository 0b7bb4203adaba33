"use strict";
// Draws charts when they come into sight. Bars: dots are rounds, the bar is the
// interval, its tick the median. Lines: the band is the interval.
(() => {
  const { variants, charts } = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element → chart
  let wanted = dark.matches, printing = false;
  const colours = 10, symbols = ["circle", "rect", "triangle", "diamond"], signs = "●■▲◆○□△◇";
  // Styles are read once for all charts: each reading between two drawings would
  // make the browser lay the page out again.
  let palette = {};
  const colour = (name) => palette[name];
  const look = () => {
    const style = getComputedStyle(root);
    for (const n of ["ground", "ink", "soft", "line", "raised", "bar", "dot", "open", ...Array.from({ length: colours }, (_, i) => "c" + i)]) palette[n] = style.getPropertyValue("--" + n).trim();
  };
  const of = (variant) => {
    const i = variants.indexOf(variant);
    return { stroke: colour("c" + i % colours), symbol: symbols[i % symbols.length], hollow: i % signs.length >= symbols.length, sign: signs[i % signs.length], dashed: i >= colours };
  };
  const text = (s) => { const e = document.createElement("span"); e.textContent = s; return e; };

  // interval draws [row, median, low, high, open] as a bar with caps and a tick.
  const interval = (params, api) => {
    const row = api.value(0), y = api.coord([api.value(1), row])[1];
    const x = (i) => api.coord([api.value(i), row])[0];
    const stroke = api.value(4) ? colour("open") : colour("bar");
    const line = (x1, y1, x2, y2, width) => ({ type: "line", shape: { x1, y1, x2, y2 }, style: { stroke, lineWidth: width, opacity: 1 } });
    return { type: "group", children: [
      line(x(2), y, x(3), y, 3), line(x(2), y - 7, x(2), y + 7, 2), line(x(3), y - 7, x(3), y + 7, 2), line(x(1), y - 11, x(1), y + 11, 5),
    ] };
  };

  // dots spreads the rounds below their bar in the order in which they ran.
  const dots = (bars) => bars.flatMap((b, row) => b.rounds.map((v, i) => v === null ? null : { value: [v, row], name: "round " + (i + 1), symbolOffset: [0, 14 + (i % 3) * 5] }).filter(Boolean));

  const base = () => {
    const fontSize = printing ? 11 : 15, ink = colour("ink"), line = colour("line"), soft = colour("soft");
    return {
      fontSize, ink,
      all: {
        animation: false, textStyle: { color: ink, fontSize },
        tooltip: { trigger: "item", confine: true, backgroundColor: colour("raised"), borderColor: line, textStyle: { color: ink, fontSize } },
      },
      axis: { axisLabel: { color: soft, fontSize, hideOverlap: true }, axisLine: { show: true, lineStyle: { color: line } }, splitLine: { lineStyle: { color: line, opacity: 0.5 } } },
      one: (at) => ({ symbol: "none", silent: true, animation: false, label: { show: false }, lineStyle: { color: ink, type: "dashed", width: 2 }, data: [at] }),
    };
  };

  const bars = (chart, ratios) => {
    const b = base(), shown = ratios ? chart.bars.filter((x) => x.ratio) : chart.bars;
    const rows = shown.map((x, i) => ratios ? [i, x.ratio.median, x.ratio.low, x.ratio.high, x.open] : [i, x.median, x.low, x.high, false]);
    const series = [{
      type: "custom", renderItem: interval, data: rows, z: 3, clip: false, encode: { x: [1, 2, 3], y: 0 },
      tooltip: { formatter: (p) => { const x = shown[p.value[0]]; return text(x.variant + ": " + (ratios ? x.by : x.text + " " + chart.unit)); } },
    }];
    if (ratios) series[0].markLine = b.one({ xAxis: 1 });
    else series.push({
      type: "scatter", data: dots(shown), symbolSize: 7, z: 2, itemStyle: { color: colour("dot"), opacity: 0.55 },
      tooltip: { formatter: (p) => text(p.name + ": " + p.value[0].toPrecision(4) + " " + chart.unit) },
    });
    const x = { ...b.axis, type: "value", min: 0 };
    if (ratios) x.max = (v) => v.max < 1.1 ? 1.2 : null; // one can be seen
    x.axisLabel = { ...x.axisLabel, formatter: (v) => (ratios ? "×" : "") + v };
    return {
      ...b.all, series, xAxis: x, grid: { left: 8, right: 24, top: 6, bottom: 4, containLabel: true },
      yAxis: { type: "category", inverse: true, data: shown.map((x) => ratios ? x.by : x.variant), axisTick: { show: false }, axisLabel: { color: b.ink, fontSize: b.fontSize, interval: 0 }, axisLine: { lineStyle: { color: colour("line") } } },
    };
  };

  const lines = (chart, ratios, hidden) => {
    const b = base(), at = (i) => chart.logX ? Math.log10(chart.ticks[i].at) : chart.ticks[i].at;
    const shown = chart.lines.filter((l) => !hidden.has(l.variant) && (!ratios || l.variant !== chart.control));
    const figures = (p) => ratios ? p.ratio && [at(p.tick), p.ratio.median, p.ratio.low, p.ratio.high] : [at(p.tick), p.median, p.low, p.high];
    const series = [], values = [];
    for (const l of shown) {
      const look = of(l.variant), points = l.points.filter(figures), rows = points.map(figures);
      for (const r of rows) values.push(r[2], r[3]);
      series.push({ // the piece from one point to the next
        type: "custom", data: rows, z: 2, silent: true, encode: { x: 0, y: [1, 2, 3] },
        renderItem: (params, api) => {
          const i = params.dataIndex, next = rows[i + 1];
          if (!next || points[i + 1].tick !== points[i].tick + 1) return null;
          const a = rows[i], c = next;
          return { type: "group", children: [
            { type: "polygon", shape: { points: [[a[0], a[2]], [c[0], c[2]], [c[0], c[3]], [a[0], a[3]]].map((p) => api.coord(p)) }, style: { fill: look.stroke, opacity: 0.16 } },
            { type: "polyline", shape: { points: [[a[0], a[1]], [c[0], c[1]]].map((p) => api.coord(p)) }, style: { stroke: look.stroke, fill: "none", lineWidth: 2.5, lineDash: look.dashed ? [7, 4] : null } },
          ] };
        },
      });
      series.push({
        type: "scatter", data: rows.map((r) => [r[0], r[1]]), symbol: look.symbol, symbolSize: 9, z: 3, itemStyle: { color: look.hollow ? colour("ground") : look.stroke, borderColor: look.stroke, borderWidth: look.hollow ? 2 : 0, opacity: 1 },
        tooltip: { formatter: (p) => { const x = points[p.dataIndex]; return text(l.variant + ", " + chart.by + " " + chart.ticks[x.tick].text + ": " + (ratios ? x.by : x.text + " " + chart.unit)); } },
      });
    }
    if (ratios && series.length) series[1].markLine = b.one({ yAxis: 1 });
    const low = Math.min(...values), high = Math.max(...values), logY = low > 0 && high / low >= 100;
    const places = chart.ticks.map((_, i) => at(i)), first = places[0], last = places[places.length - 1], room = (last - first) * 0.03;
    const names = new Map(places.map((p, i) => [p, chart.ticks[i].text]));
    const x = { ...b.axis, type: "value", min: first - room, max: last + room, name: chart.by, nameLocation: "middle", nameGap: 30, nameTextStyle: { color: b.ink, fontSize: b.fontSize } };
    x.axisLabel = { ...x.axisLabel, customValues: places, formatter: (v) => names.get(v) ?? "" };
    x.axisTick = { customValues: places };
    x.splitLine = { show: false };
    const y = { ...b.axis, type: logY ? "log" : "value", min: logY ? undefined : 0 };
    y.axisLabel = { ...y.axisLabel, formatter: (v) => (ratios ? "×" : "") + v };
    if (ratios) y.max = (v) => v.max < 1.1 ? 1.2 : null; // one can be seen
    return { ...b.all, series, xAxis: x, yAxis: y, grid: { left: 8, right: 30, top: 14, bottom: 30, containLabel: true } };
  };

  const all = [...document.querySelectorAll(".chart")];
  const dataOf = (e) => charts[e.dataset.chart];
  const hiddenIn = new Map(); // figure → variants
  const hidden = (e) => hiddenIn.get(e.closest("figure")) ?? new Set();
  const options = (e) => (dataOf(e).lines ? lines : bars)(dataOf(e), e.dataset.kind === "ratios", hidden(e));
  const heightOf = (e) => dataOf(e).lines ? (printing ? 260 : 400) : 44 + 52 * (dataOf(e).bars?.length ?? 0);
  for (const e of all) e.style.height = heightOf(e) + "px";

  // keys say which line is whose; a click takes it out and in again.
  const keys = (e) => {
    const chart = dataOf(e), place = e.closest("figure").querySelector(".keys");
    if (!chart.lines || e.dataset.kind === "ratios") return;
    place.replaceChildren(...chart.lines.map((l) => {
      const b = document.createElement("button"), look = of(l.variant), sign = text(look.sign + " ");
      sign.style.color = look.stroke;
      b.type = "button";
      b.append(sign, l.variant);
      b.setAttribute("aria-pressed", !hidden(e).has(l.variant));
      b.addEventListener("click", () => {
        const off = hidden(e);
        off.has(l.variant) ? off.delete(l.variant) : off.add(l.variant);
        hiddenIn.set(e.closest("figure"), off);
        b.setAttribute("aria-pressed", !off.has(l.variant));
        for (const c of e.closest("figure").querySelectorAll(".chart")) if (drawn.has(c)) drawn.get(c).setOption(options(c), true);
      });
      return b;
    }));
  };

  // A sheet of A4 is light, and 680 pixels wide within its margins; page.css
  // gives the columns of charts these widths.
  const sheet = { figures: 400, ratios: 260, alone: 680 };
  const widthOf = (e) => !printing ? e.clientWidth : e.parentNode.matches(".alone") ? sheet.alone : sheet[e.dataset.kind];
  const draw = (some) => {
    const widths = some.map(widthOf);
    some.forEach((e, i) => {
      if (!widths[i]) return; // in something that is closed
      e.style.height = heightOf(e) + "px";
      if (!drawn.has(e)) drawn.set(e, echarts.init(e, null, { renderer: "svg", width: widths[i], height: heightOf(e) }));
      else drawn.get(e).resize({ width: widths[i], height: heightOf(e), silent: true });
      keys(e);
      drawn.get(e).setOption(options(e), true);
    });
  };
  const show = () => { root.classList.toggle("dark", wanted && !printing); look(); draw([...drawn.keys()]); };
  const theme = (isDark) => { wanted = isDark; show(); };
  show();
  const sight = new IntersectionObserver((entries) => {
    const now = entries.filter((e) => e.isIntersecting).map((e) => e.target);
    for (const e of now) sight.unobserve(e);
    draw(now);
  }, { rootMargin: "800px" });
  for (const e of all) sight.observe(e);
  dark.addEventListener("change", (e) => theme(e.matches));
  document.getElementById("theme").addEventListener("click", () => theme(!wanted));
  addEventListener("resize", () => draw([...drawn.keys()]));
  const open = (e) => { const d = e.closest("details"); return !d || d.open; };
  addEventListener("beforeprint", () => { printing = true; show(); draw(all.filter((e) => !drawn.has(e) && open(e))); });
  addEventListener("afterprint", () => { printing = false; show(); });

  document.getElementById("save").addEventListener("click", () => {
    const a = document.createElement("a");
    a.href = URL.createObjectURL(new Blob([document.getElementById("raw").textContent], { type: "application/json" }));
    a.download = "bench.json";
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 1000);
  });
})();
