"use strict";
// Draws every chart: dots are rounds, a bar is the interval, its tick the median.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element → chart
  let wanted = dark.matches, printing = false;
  // Styles and widths are read once for all charts: each reading between two
  // drawings would make the browser lay the page out again.
  let palette = {};
  const colour = (name) => palette[name];
  const look = () => { const style = getComputedStyle(root); for (const n of ["ink", "soft", "line", "raised", "bar", "dot", "open"]) palette[n] = style.getPropertyValue("--" + n).trim(); };

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

  const options = (chart, kind) => {
    const ratios = kind === "ratios";
    const bars = ratios ? chart.bars.filter((b) => b.ratio) : chart.bars;
    const rows = bars.map((b, i) => ratios ? [i, b.ratio.median, b.ratio.low, b.ratio.high, b.open] : [i, b.median, b.low, b.high, false]);
    const fontSize = printing ? 11 : 15, ink = colour("ink"), soft = colour("soft"), line = colour("line");
    const series = [{
      type: "custom", renderItem: interval, data: rows, z: 3, clip: false, encode: { x: [1, 2, 3], y: 0 },
      tooltip: { formatter: (p) => { const b = bars[p.value[0]], s = document.createElement("span"); s.textContent = b.variant + ": " + (ratios ? b.by : b.text + " " + chart.unit); return s; } },
    }];
    if (!ratios) {
      series.push({
        type: "scatter", data: dots(bars), symbolSize: 7, z: 2, itemStyle: { color: colour("dot"), opacity: 0.55 },
        tooltip: { formatter: (p) => { const s = document.createElement("span"); s.textContent = p.name + ": " + p.value[0].toPrecision(4) + " " + chart.unit; return s; } },
      });
    } else {
      series[0].markLine = { symbol: "none", silent: true, animation: false, label: { show: false }, lineStyle: { color: ink, type: "dashed", width: 2 }, data: [{ xAxis: 1 }] };
    }
    return {
      animation: false, textStyle: { color: ink, fontSize },
      grid: { left: 8, right: 24, top: 6, bottom: 4, containLabel: true },
      tooltip: { trigger: "item", confine: true, backgroundColor: colour("raised"), borderColor: line, textStyle: { color: ink, fontSize } },
      xAxis: { type: "value", min: 0, axisLabel: { color: soft, fontSize, hideOverlap: true, formatter: (v) => (ratios ? "×" : "") + v }, axisLine: { show: true, lineStyle: { color: line } }, splitLine: { lineStyle: { color: line, opacity: 0.5 } } },
      yAxis: { type: "category", inverse: true, data: bars.map((b) => ratios ? b.by : b.variant), axisTick: { show: false }, axisLabel: { color: ink, fontSize, interval: 0 }, axisLine: { lineStyle: { color: line } } },
      series,
    };
  };

  const all = [...document.querySelectorAll(".chart")];
  const dataOf = (e) => charts[e.dataset.group][e.dataset.chart];
  const heightOf = (e) => 44 + 52 * dataOf(e).bars.length;
  for (const e of all) e.style.height = heightOf(e) + "px";

  // A sheet of A4 is light, and 680 pixels wide within its margins; page.css
  // gives the columns of charts these widths.
  const sheet = { figures: 400, ratios: 260, alone: 680 };
  const widthOf = (e) => !printing ? e.clientWidth : e.parentNode.matches(".alone") ? sheet.alone : sheet[e.dataset.kind];
  const size = () => { const widths = all.map(widthOf); all.forEach((e, i) => drawn.get(e).resize({ width: widths[i], height: heightOf(e) })); };
  const show = () => {
    root.classList.toggle("dark", wanted && !printing);
    look();
    const widths = all.map(widthOf);
    all.forEach((e, i) => {
      if (!drawn.has(e)) drawn.set(e, echarts.init(e, null, { renderer: "svg", width: widths[i], height: heightOf(e) }));
      else drawn.get(e).resize({ width: widths[i], height: heightOf(e), silent: true });
      drawn.get(e).setOption(options(dataOf(e), e.dataset.kind), true);
    });
  };
  const theme = (isDark) => { wanted = isDark; show(); };
  show();
  dark.addEventListener("change", (e) => theme(e.matches));
  document.getElementById("theme").addEventListener("click", () => theme(!wanted));
  addEventListener("resize", size);
  const print = (on) => () => { printing = on; show(); };
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));

  document.getElementById("save").addEventListener("click", () => {
    const a = document.createElement("a");
    a.href = URL.createObjectURL(new Blob([document.getElementById("raw").textContent], { type: "application/json" }));
    a.download = "bench.json";
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 1000);
  });
})();
