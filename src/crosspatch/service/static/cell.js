// The plots of a cell, and the parts of its page as they come. Sweeps come thinned; zooming in
// fetches that stretch of them in full.
"use strict";
(() => {
  const live = () => document.getElementById("live");
  const read = () => JSON.parse(document.getElementById("shown").textContent);
  let shown = read();
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const CONFIG = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"], doubleClick: "reset" };
  // A finger on a plot moves the page.
  const TOUCH = matchMedia("(pointer: coarse)").matches;
  // viridis, from dark to bright; the brightest yellow is lost on white, the darkest violet on black.
  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [220, 210, 40]];
  const dark = () => document.documentElement.dataset.theme === "dark";
  const colour = (share) => {
    const from = dark() ? 0.22 : 0, at = (from + share * (1 - from)) * (VIRIDIS.length - 1);
    const k = Math.min(Math.floor(at), VIRIDIS.length - 2);
    const mixed = VIRIDIS[k].map((low, i) => Math.round(low + (VIRIDIS[k + 1][i] - low) * (at - k)));
    return `rgb(${mixed.join(",")})`;
  };

  const axis = (title, more = {}) => ({
    title: { text: title, font: { size: 13 }, standoff: 6 }, gridcolor: css("--track"), linecolor: css("--quiet"),
    zeroline: false, ticks: "outside", tickcolor: css("--quiet"), automargin: true, showline: true, ...more,
  });
  const layout = (more) => ({
    paper_bgcolor: css("--card"), plot_bgcolor: css("--card"), font: { color: css("--ink"), size: 13, family: "system-ui, sans-serif" },
    margin: { l: 58, r: 12, t: 8, b: 44 }, hovermode: "closest", dragmode: TOUCH ? false : "zoom", showlegend: false,
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } }, ...more,
  });

  const sweeps = async (place, stimulus, range) => {
    const query = new URLSearchParams({ stimulus, part: shown.part });
    if (range) { query.set("start", Math.max(range[0], 0)); query.set("end", Math.max(range[1], 0)); query.set("stretches", 1200); }
    const answer = await fetch(`${shown.file}/sweeps?${query}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    return unpacked(await answer.arrayBuffer());
  };
  // How long the JSON is, the JSON, and numbers of 16 bits; see the interface's description.
  const unpacked = (buffer) => {
    const length = new DataView(buffer).getUint32(0, true);
    const found = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    let place = 4 + length;
    for (const each of found) {
      for (const signal of [each.voltage, each.current]) {
        const { count, base, step } = signal;
        signal.values = Float64Array.from(new Int16Array(buffer, place, count), (code) => (code === -32768 ? NaN : base + step * code));
        place += 2 * count;
      }
    }
    return found;
  };
  const traces = (found) => {
    const steps = found.filter((each) => each.passed).map((each) => Math.round(each.amplitude ?? 0));
    const order = [...new Set(steps)].sort((a, b) => a - b);
    const share = (each) => (order.length > 1 ? order.indexOf(Math.round(each.amplitude ?? 0)) / (order.length - 1) : 0.5);
    // Rejected sweeps lie under the others.
    const drawn = [...found].sort((a, b) => a.passed - b.passed);
    const signal = (each, name, more) => ({
      type: "scatter", mode: "lines", x0: each[name].t0, dx: each[name].dt, y: each[name].values,
      line: { width: 1, color: each.passed ? colour(share(each)) : dark() ? "#555c64" : "#bfc4ca" },
      name: `sweep ${each.number}`,
      hovertemplate: `sweep ${each.number}${each.amplitude === null ? "" : `, ${Math.round(each.amplitude)} pA`}${each.passed ? "" : `<br>rejected: ${each.reasons.join("; ").replace(/</g, "&lt;")}`}<br>%{x:.4f} s, %{y:.1f}<extra></extra>`,
      ...more,
    });
    return [
      ...drawn.map((each) => signal(each, "voltage", {})),
      ...drawn.map((each) => signal(each, "current", { yaxis: "y2" })),
    ];
  };
  const drawSweeps = async (place) => {
    const stimulus = place.dataset.stimulus;
    const hint = document.querySelector(`[data-hint="${CSS.escape(stimulus)}"]`);
    const whole = await sweeps(place, stimulus);
    let asked = 0, timer;
    const look = () => layout({
      xaxis: axis("time (s)", { anchor: "y2", domain: [0, 1] }),
      yaxis: axis("mV", { domain: [0.32, 1] }), yaxis2: axis("pA", { domain: [0, 0.24], nticks: 4 }),
    });
    if (stimulus === "short square") {
      // Its spike is but a line otherwise.
      const starts = closeUp(whole);
      if (starts) { const first = look(); first.xaxis.range = starts; await Plotly.newPlot(place, traces(whole), first, CONFIG); await refine(starts); }
    }
    if (!place.data) await Plotly.newPlot(place, traces(whole), look(), CONFIG);
    async function refine(range) {
      asked += 1;
      const mine = asked;
      try {
        const found = await sweeps(place, stimulus, range);
        if (mine !== asked) return;
        const now = { ...place.layout, datarevision: mine };
        await Plotly.react(place, traces(found), now, CONFIG);
        if (hint) hint.textContent = "";
      } catch (error) { if (hint) hint.textContent = error.message; }
    }
    place.on("plotly_relayout", (event) => {
      clearTimeout(timer);
      if (event["xaxis.autorange"] || (event["xaxis.range[0]"] === undefined && event["xaxis.range"] === undefined && !event.autosize)) {
        if (event["xaxis.autorange"]) { asked += 1; Plotly.react(place, traces(whole), { ...place.layout, datarevision: -asked }, CONFIG); }
        return;
      }
      if (event.autosize) return;
      const range = event["xaxis.range"] || [event["xaxis.range[0]"], event["xaxis.range[1]"]];
      timer = setTimeout(() => refine(range.map(Number)), 150);
    });
    return () => Plotly.react(place, traces(whole), look(), CONFIG);
  };
  const closeUp = (found) => {
    // Where the command changes: some sweeps are longer than others, their pulses start alike.
    let low = Infinity, high = -Infinity;
    for (const each of found) {
      const { t0, dt, values } = each.current;
      const rest = values[0], most = values.reduce((so, v) => Math.max(so, Math.abs(v - rest) || 0), 0);
      if (!(most > 0)) continue;
      const on = values.findIndex((v) => Math.abs(v - rest) > most / 2);
      low = Math.min(low, t0 + on * dt);
      high = Math.max(high, t0 + on * dt);
    }
    return Number.isFinite(low) ? [Math.max(low - 0.01, 0), high + 0.045] : null;
  };

  const spikes = (place) => Plotly.react(place, shown.first_spikes.map((each) => ({
    type: "scatter", mode: "lines", x: each.time, y: each.voltage, name: each.stimulus, line: { width: 2, color: spike(each) },
    hovertemplate: `${each.stimulus}<br>%{x:.2f} ms, %{y:.1f} mV<extra></extra>`,
  })), layout({ xaxis: axis("time (ms)"), yaxis: axis("potential (mV)"), ...legend() }), CONFIG);
  const phase = (place) => Plotly.react(place, shown.first_spikes.map((each) => ({
    type: "scatter", mode: "lines", x: each.voltage, y: each.speed, name: each.stimulus, line: { width: 2, color: spike(each) },
    hovertemplate: `${each.stimulus}<br>%{x:.1f} mV, %{y:.0f} mV/ms<extra></extra>`,
  })), layout({ xaxis: axis("potential (mV)"), yaxis: axis("dV/dt (mV/ms)"), ...legend() }), CONFIG);
  const spike = (each) => (dark() && each.stimulus === "rheobase" ? "#56b4e9" : shown.spike_colours[each.stimulus]);
  const legend = () => ({ showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } }, margin: { l: 58, r: 12, t: 30, b: 44 } });
  const rates = (place) => Plotly.react(place, [{
    type: "scatter", mode: "lines+markers", x: shown.rates.current, y: shown.rates.rate, marker: { size: 7 }, line: { width: 2, color: dark() ? "#56b4e9" : "#0072b2" },
    hovertemplate: "%{x:.0f} pA, %{y:.1f} spikes/s<extra></extra>",
  }], layout({ xaxis: axis("step (pA)"), yaxis: axis("rate (spikes/s)", { rangemode: "tozero" }) }), CONFIG);

  let points;
  const drawMap = async (place) => {
    points = points || await (await fetch("/api/v1/map")).json();
    const groups = new Map();
    points.subclass.forEach((name, k) => {
      const key = `${name}|${points.species[k]}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(k);
    });
    const names = Object.keys(shown.colours);
    const keys = [...groups.keys()].sort((a, b) => names.indexOf(a.split("|")[0]) - names.indexOf(b.split("|")[0]) || (a < b ? 1 : -1));
    const clouds = keys.map((key) => {
      const [name, species] = key.split("|"), rows = groups.get(key), human = species === "human";
      return {
        type: "scatter", mode: "markers", x: rows.map((k) => points.x[k]), y: rows.map((k) => points.y[k]), text: rows.map((k) => points.cell_id[k]),
        name: human ? `${name}, human` : name, legendgroup: name,
        marker: { size: human ? 6 : 4, symbol: human ? "diamond" : "circle", color: shown.colours[name], opacity: human ? 0.95 : 0.55, line: { width: human ? 0.8 : 0, color: css("--ink") } },
        hovertemplate: `%{text}<br>${species} ${name}<extra></extra>`,
      };
    });
    clouds.push({
      type: "scatter", mode: "markers", x: [shown.map.x], y: [shown.map.y], name: "this cell", showlegend: true,
      marker: { symbol: "star", size: 20, color: css("--own"), line: { width: 2, color: css("--halo") } },
      text: [shown.cell], hovertemplate: "%{text}<extra></extra>",
    });
    const bare = { showgrid: false, zeroline: false, showticklabels: false, ticks: "", showline: false };
    await Plotly.react(place, clouds, layout({
      xaxis: axis("UMAP 1", bare), yaxis: axis("UMAP 2", { ...bare, scaleanchor: "x" }),
      showlegend: true, legend: { orientation: "h", y: -0.08, yanchor: "top", font: { size: 12 }, itemsizing: "constant" }, margin: { l: 30, r: 8, t: 8, b: 30 },
    }), CONFIG);
  };

  const DRAW = { spikes, phase, rates, map: drawMap };
  const again = new Map();
  const draw = async (place) => {
    again.set(place, () => {});
    try {
      if (place.dataset.plot === "sweeps") again.set(place, await drawSweeps(place));
      else { await DRAW[place.dataset.plot](place); again.set(place, () => DRAW[place.dataset.plot](place)); }
      place.dataset.drawn = "yes";
    } catch (error) {
      place.textContent = `This could not be drawn: ${error.message}`;
      place.dataset.drawn = "no";
    }
  };
  const drawAll = () => document.querySelectorAll("[data-plot]").forEach((place) => { if (!again.has(place)) draw(place); });
  document.documentElement.addEventListener("themechange", () => again.forEach((redraw) => redraw()));

  // What came since: all but the sweeps that are drawn already, as whoever looks at them left them.
  const swap = async () => {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.getElementById("live");
    if (!next) { location.replace(shown.batch); return; }
    document.adoptNode(next);
    // Whoever has scrolled to something goes on seeing it.
    const seen = scrollY && live().querySelector("figure"), top = seen && seen.getBoundingClientRect().top;
    for (const old of live().querySelectorAll("figure[data-key]")) {
      const its = next.querySelector(`figure[data-key="${CSS.escape(old.dataset.key)}"]`);
      if (its) its.replaceWith(old); else again.delete(old.querySelector("[data-plot]"));
    }
    live().replaceWith(next);
    if (seen && seen.isConnected) scrollBy(0, seen.getBoundingClientRect().top - top);
    document.title = page.title;
    shown = read();
    drawAll();
  };
  const follow = async () => {
    const begun = Date.now();
    let last = live().dataset.stage;
    while (live().dataset.finished === "no") {
      await new Promise((go) => setTimeout(go, Date.now() - begun < 3e4 ? 100 : 700));
      let file;
      try { file = await (await fetch(shown.file)).json(); } catch { continue; }
      const working = ["waiting", "working"].includes(file.state);
      if (working && file.stage === last) continue;
      last = file.stage;
      for (const each of document.querySelectorAll("#status, .waiting .said")) each.textContent = `${file.stage || file.state} …`;
      // Why it failed, and what can be done, is on the batch's page.
      if (!working && file.state !== "done") { location.replace(shown.batch); return; }
      // Until it is read there is nothing to be seen.
      if (!["", "simulating", "reading"].includes(file.stage) || !working) await swap();
    }
  };
  drawAll();
  follow();

  document.addEventListener("click", (event) => {
    const all = event.target;
    if (all.id !== "all-values") return;
    const open = all.getAttribute("aria-expanded") !== "true";
    document.querySelectorAll("#values .rest").forEach((each) => { each.hidden = !open; });
    all.setAttribute("aria-expanded", String(open));
    all.dataset.all ??= all.textContent;
    all.textContent = open ? "Show the most telling only" : all.dataset.all;
  });
})();
