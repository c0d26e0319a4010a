/* The heat map: for each worker a strip, time to the right, poll delay upwards in logarithmic steps. Blue is within the
   governor's target, warm is above it; the more events, the stronger. */
const HISTORY = 300, SHORTEST = 60; /* snapshots that are kept, five minutes; that a picture shows at least */
const shownSpan = () => Math.min(HISTORY, Math.max(SHORTEST, heat.columns.length));
const heat = {columns: [], lowest: 1e3, highest: 1e9, left: 88, gap: 10, bottom: 18};

/* Steps of half an octave, as the snapshot has them. */
const heatRow = ns => Math.max(0, Math.min(heat.rows - 1, Math.round(2 * Math.log2(ns / heat.lowest))));
heat.rows = Math.ceil(2 * Math.log2(heat.highest / heat.lowest)) + 1;

function heatAdd(live) {
    heat.columns.push(live && {
        time: live.time, target: live.gate.target_ns || 5e6,
        workers: live.workers.map(w => {
            const cells = new Map();
            for (const [ns, n] of w.poll_delay_hist) cells.set(heatRow(ns), (cells.get(heatRow(ns)) || 0) + n);
            return {cells, total: [...cells.values()].reduce((a, b) => a + b, 0), p50: w.poll_delay_p50_ns,
                    p99: w.poll_delay_p99_ns, max: w.poll_delay_max_ns};
        }),
    });
    if (heat.columns.length > HISTORY) heat.columns.shift();
}

function mix(a, b, t) {
    const of = c => [1, 3, 5].map(i => parseInt(c.slice(i, i + 2), 16)), x = of(a), y = of(b);
    return "rgb(" + x.map((v, i) => Math.round(v + (y[i] - v) * t)).join(",") + ")";
}

function heatPlan(workers) {
    const strip = workers <= 2 ? 96 : workers <= 4 ? 72 : workers <= 8 ? 52 : 34;
    return {strip, height: workers * (strip + heat.gap) - heat.gap + heat.bottom};
}

function heatDraw() {
    const canvas = $("heat-canvas"), last = heat.columns.findLast(c => c), ratio = devicePixelRatio || 1;
    if (!last) return;
    const n = last.workers.length, {strip, height} = heatPlan(n), width = $("heat").clientWidth;
    canvas.style.height = height + "px";
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const g = canvas.getContext("2d"), step = (width - heat.left) / shownSpan(), cell = strip / heat.rows;
    const c = {};
    for (const k of ["none", "lo", "hi"]) c[k] = color("--heat-" + k);
    c.lateLo = color("--late-lo"); c.lateHi = color("--late-hi");
    const soft = color("--soft"), text = color("--text"), ramp = {};
    for (let i = 0; i <= 16; i++) ramp[i] = [mix(c.lo, c.hi, i / 16), mix(c.lateLo, c.lateHi, i / 16)];
    g.scale(ratio, ratio);
    g.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    for (let w = 0; w < n; w++) {
        const top = w * (strip + heat.gap);
        g.fillStyle = c.none;
        g.fillRect(heat.left, top, width - heat.left, strip);
        heat.columns.forEach((col, i) => {
            const worker = col && col.workers[w];
            if (!worker) return;
            const x = width - (heat.columns.length - i) * step, late = heatRow(col.target);
            for (const [row, events] of worker.cells) {
                /* One event is to be seen beside a hundred thousand. */
                const t = Math.round(16 * (.15 + .85 * Math.log1p(events) / Math.log1p(Math.max(worker.total, 20))));
                g.fillStyle = ramp[t][row > late ? 1 : 0];
                g.fillRect(x, top + strip - (row + 1) * cell, step + .4, cell + .4);
            }
        });
        const y = top + strip - (heatRow(last.target) + 1) * cell;
        g.strokeStyle = soft; g.setLineDash([3, 4]); g.lineWidth = 1;
        g.beginPath(); g.moveTo(heat.left, y); g.lineTo(width, y); g.stroke(); g.setLineDash([]);
        g.fillStyle = text; g.textBaseline = "top"; g.textAlign = "left";
        g.fillText("Worker " + w, 0, top + 1);
        g.fillStyle = soft; g.textAlign = "right";
        const marks = [[1e3, "bottom", top + strip], [1e6, "middle", top + strip / 2], [1e9, "top", top + 1]];
        for (const [ns, baseline, at] of strip > 60 ? marks : strip > 40 ? [marks[0], marks[2]] : []) {
            g.textBaseline = baseline;
            g.fillText(delay(ns).replace(".0", ""), heat.left - 6, at);
        }
    }
    g.fillStyle = soft; g.textBaseline = "bottom"; g.textAlign = "center";
    const mark = shownSpan() > 150 ? 60 : 15;
    for (let s = mark; s < shownSpan(); s += mark) {
        const x = width - s * step;
        if (x > heat.left + 20) g.fillText("−" + (mark < 60 ? s + " s" : s / 60 + " min"), x, height);
    }
    g.textAlign = "right";
    g.fillText("now", width, height);
}

/* What is under the pointer, in words. */
function heatPoint(ev) {
    const box = $("heat-canvas").getBoundingClientRect(), last = heat.columns.findLast(c => c);
    if (!last) return;
    const {strip} = heatPlan(last.workers.length), w = Math.floor((ev.clientY - box.top) / (strip + heat.gap));
    const i = heat.columns.length - Math.ceil((box.width - (ev.clientX - box.left)) / ((box.width - heat.left) / shownSpan()));
    const col = heat.columns[i], worker = col && col.workers[w];
    say($("heat-at"), worker ? "Worker " + w + " at " + clock(col.time) + ": " + count(worker.total) + " events, p50 " +
        delay(worker.p50) + ", p99 " + delay(worker.p99) + ", longest " + delay(worker.max) : "");
}

/* The same for who does not see it: in words always, as a table on demand. */
function heatTell() {
    const seen = heat.columns.filter(c => c), last = seen[seen.length - 1];
    say($("heat-text"), last.workers.map((w, i) => "Worker " + i + ": p99 " + delay(w.p99) + ", longest of the last " +
        span(seen.length) + " " + delay(seen.reduce((n, c) => Math.max(n, c.workers[i] ? c.workers[i].max : 0), 0))).join(". ") + ".");
    if (!$("heat-table").parentElement.open) return;
    table($("heat-table"), "Longest poll delay of each half minute", ["Worker", ...[9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map(k =>
        k ? "−" + (k * 30) + " s" : "now")], last.workers.map((_, i) => ["Worker " + i, ...[9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map(k => {
        const part = seen.slice(Math.max(0, seen.length - (k + 1) * 30), Math.max(0, seen.length - k * 30));
        return part.length ? delay(part.reduce((n, c) => Math.max(n, c.workers[i] ? c.workers[i].max : 0), 0)) : "–";
    })]));
}

function heatStart() {
    const key = $("heat-key"), ramp = cls => make("span", "", "ramp " + cls);
    key.append("Events within the target: few ", ramp("early"), " many; above it: few ", ramp("late"), " many");
    $("heat-canvas").addEventListener("pointermove", heatPoint);
    $("heat-canvas").addEventListener("pointerleave", () => say($("heat-at"), ""));
    new ResizeObserver(heatDraw).observe($("heat"));
}
