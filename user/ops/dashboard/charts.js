/* Lines over time, by uPlot. All share one row of times; a gap in the stream is a gap in the lines. */
const WORKER_LINES = 8; /* more are shown as their most and their median */
const BINARY = Array.from({length: 40}, (_, i) => 2 ** i);
const charts = [];
let times = [];

const clock = s => new Date(s * 1000).toLocaleTimeString([], {hour12: false});

/* top: what the axis reaches at least; steps: where its marks may stand. */
function addChart(title, format, series, of, top = 4, steps) {
    const card = make("section", undefined, "card"), head = make("div", undefined, "head"), h = make("h2", title);
    const legend = make("ul", undefined, "legend"), plot = make("div", undefined, "plot"), more = make("details");
    const numbers = make("div", undefined, "scroll");
    h.id = "chart-" + charts.length;
    card.setAttribute("aria-labelledby", h.id);
    plot.setAttribute("role", "img");
    head.append(h);
    more.append(make("summary", title + " as a table"), numbers);
    card.append(head, legend, plot, more);
    $("charts").append(card);
    const chart = {title, format, of, top, steps, plot, legend, numbers, more, data: [], series: null, u: null};
    charts.push(chart);
    setSeries(chart, series);
    new ResizeObserver(() => chart.u.setSize({width: plot.clientWidth || 300, height: 150})).observe(plot);
}

/* The most of the last minute: what a gateway weighs before anybody is there would hide the rest. */
const recent = chart => Math.max(...chart.data.map(d => Math.max(...d.slice(-60))));

function setSeries(chart, names) {
    if (chart.series && names.join() === chart.series.join()) return;
    chart.series = names;
    chart.data = names.map(() => times.map(() => null));
    chart.legend.replaceChildren(...names.map((name, i) => {
        const li = make("li"), mark = make("i");
        mark.style.background = "var(--s" + i + ")";
        li.append(mark, name + " ", make("b", "–"));
        return li;
    }));
    if (chart.u) chart.u.destroy();
    const axis = {stroke: () => color("--soft"), grid: {stroke: () => color("--faint"), width: 1}, ticks: {show: false},
                  font: "11px system-ui, 'DejaVu Sans', sans-serif"};
    chart.u = new uPlot({
        width: chart.plot.clientWidth || 300, height: 150, legend: {show: false}, padding: [8, 8, 0, 0],
        cursor: {y: false, drag: {x: false, y: false}, sync: {key: "time"}, points: {size: 6}},
        scales: {x: {time: true, range: (u, min, max) => max ? [max - shownSpan(), max] : [0, SHORTEST]},
                 y: {range: (u, min, max) => [0, Math.max(chart.top, (chart.steps ? recent(chart) : max) * 1.12)]}},
        axes: [{...axis, size: 22, gap: 3, space: 80, values: (u, at) => at.map(s => clock(s).slice(0, s % 60 ? 8 : 5))},
               {...axis, size: 54, gap: 4, space: 34, values: (u, at) => at.map(chart.format), ...(chart.steps && {incrs: chart.steps})}],
        series: [{}, ...names.map((name, i) => ({label: name, width: 1.5, spanGaps: false, points: {show: false},
                                                 stroke: () => color("--s" + i)}))],
        hooks: {setCursor: [u => chartTell(chart, u.cursor.idx)]},
    }, [times, ...chart.data], chart.plot);
}

/* Values at the cursor, or the newest. */
function chartTell(chart, at) {
    if (at === null || at === undefined) at = times.length - 1;
    chart.legend.querySelectorAll("b").forEach((b, i) => say(b, chart.format(chart.data[i][at])));
}

function chartNumbers(chart) {
    chart.plot.setAttribute("aria-label", chart.title + ": " + chart.series.map((name, i) =>
        name + " " + chart.format(chart.data[i][times.length - 1])).join(", "));
    if (!chart.more.open) return;
    table(chart.numbers, "The last " + span(times.length), ["Series", "now", "least", "most"], chart.series.map((name, i) => {
        const seen = chart.data[i].filter(v => v !== null);
        return [name, chart.format(chart.data[i][times.length - 1]), chart.format(seen.length ? Math.min(...seen) : null),
                chart.format(seen.length ? Math.max(...seen) : null)];
    }));
}

/* live null: a gap that long. */
function chartsAdd(time, live) {
    times.push(time);
    for (const chart of charts) {
        const values = live ? chart.of(live) : null;
        chart.data.forEach((d, i) => d.push(values ? values[i] : null));
    }
    if (times.length > HISTORY) {
        times.shift();
        for (const chart of charts) chart.data.forEach(d => d.shift());
    }
}

function chartsDraw() {
    for (const chart of charts) {
        chart.u.setData([times, ...chart.data]);
        if (chart.u.cursor.left < 0 || chart.u.cursor.left === undefined) chartTell(chart);
        chartNumbers(chart);
    }
}

function perWorker(live, key) {
    const v = live.workers.map(w => w[key]);
    if (v.length <= WORKER_LINES) return v;
    const sorted = [...v].sort((a, b) => a - b);
    return [sorted[sorted.length - 1], sorted[sorted.length >> 1]];
}

function chartsStart() {
    addChart("Connections", count, ["open", "handshaking"], l => [sum(l.workers, "connections"), sum(l.workers, "handshaking")]);
    addChart("Accepts and closes per second", count, ["accepts", "closes"],
        l => [sum(l.workers, "accepts_per_s"), sum(l.workers, "closes_per_s")]);
    addChart("Run queue by worker", count, ["worker 0"], l => perWorker(l, "runnable"));
    addChart("Busy by worker", percent, ["worker 0"], l => perWorker(l, "busy"), 1);
    addChart("Memory per connection", bytes, ["resident"], l => [l.memory.per_connection], 1024, BINARY);
    addChart("Admitted and refused per second", count, ["admitted", "refused"], l => [
        l.verdicts.filter(v => !v.refuses && /^(open|paced|allowed)$/.test(v.reason)).reduce((n, v) => n + v.per_s, 0),
        l.verdicts.filter(v => v.refuses).reduce((n, v) => n + v.per_s, 0)]);
}

function chartsWorkers(live) {
    const n = live.workers.length;
    for (const chart of charts)
        if (chart.title.endsWith("by worker"))
            setSeries(chart, n > WORKER_LINES ? ["most", "median"] : live.workers.map(w => "worker " + w.worker));
}
