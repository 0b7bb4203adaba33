"use strict";
// Draws every chart: dots are rounds, a bar is the interval, its tick the median.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element → chart
  let wanted = dark.matches, printing = false;
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

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

  const draw = (element) => {
    const { group, chart, kind } = element.dataset, data = charts[group][chart];
    if (!drawn.has(element)) {
      element.style.height = 44 + 52 * data.bars.length + "px";
      drawn.set(element, echarts.init(element, null, { renderer: "svg" }));
    }
    drawn.get(element).setOption(options(data, kind), true);
  };
  const all = [...document.querySelectorAll(".chart")];
  const drawAll = () => all.forEach(draw);

  // A sheet of A4 is light, and 680 pixels wide within its margins; page.css
  // gives the columns of charts these widths.
  const sheet = { figures: 400, ratios: 260, alone: 680 };
  const show = () => { root.classList.toggle("dark", wanted && !printing); drawAll(); };
  const size = () => drawn.forEach((c, e) => c.resize(printing ? { width: e.parentNode.matches(".alone") ? sheet.alone : sheet[e.dataset.kind] } : { width: "auto" }));
  const theme = (isDark) => { wanted = isDark; show(); };
  show();
  dark.addEventListener("change", (e) => theme(e.matches));
  document.getElementById("theme").addEventListener("click", () => theme(!wanted));
  addEventListener("resize", size);
  const print = (on) => () => { printing = on; show(); size(); };
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
