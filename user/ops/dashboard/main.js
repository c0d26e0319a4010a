/* The stream of snapshots, and what shows them. */
const STALE_MS = 3500, RETRY_MS = 3000;
let stream, last = 0, retryAt = 0, shown = null;

function state(name, text) {
    document.documentElement.className = name;
    say($("said"), text);
}

function show(live) {
    /* One that was missed, or a gateway that has started anew, is a gap. */
    if (shown && (live.time - shown.time > 2.5 || live.seq <= shown.seq)) {
        heatAdd(null);
        chartsAdd(live.time - 1, null);
    }
    shown = live;
    chartsWorkers(live);
    heatAdd(live);
    chartsAdd(live.time, live);
    if (document.hidden) return;
    say($("instance"), live.instance + " · " + live.version + " · up " + span(live.uptime_s));
    document.title = "tidegate " + live.instance + (live.gate.state === "off" ? "" : " – " + live.gate.state);
    for (const f of [showGate, showTiles, showWorkers, showVerdicts, showSources, showRoutes, showLinks, showLine]) f(live);
    heatDraw();
    heatTell();
    chartsDraw();
}

function connect() {
    stream = new EventSource("/v1/events");
    stream.onmessage = ev => {
        last = performance.now();
        show(JSON.parse(ev.data));
        state("live", "Live");
        say($("age"), "");
    };
}

/* A browser gives up on an answer that is no stream, as with too many viewers. */
function watch() {
    const now = performance.now(), ms = now - last;
    if (stream.readyState === EventSource.CLOSED && now > retryAt) {
        retryAt = now + RETRY_MS;
        connect();
    }
    if (ms <= STALE_MS) return;
    state("stale", last ? "Stale" : "No data");
    say($("age"), last ? "last data " + span(ms / 1000) + " ago" : "trying to connect");
}

/* ---- light and dark ---- */

const themes = ["system", "light", "dark"], dark = matchMedia("(prefers-color-scheme: dark)");
let theme = "system";

function applyTheme() {
    document.documentElement.dataset.theme = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
    say($("theme"), "Theme: " + theme);
    heatDraw();
    for (const chart of charts) chart.u.redraw(false);
}

function themeStart() {
    try { theme = localStorage.getItem("tidegate-theme") || "system"; } catch { /* not allowed: the system's */ }
    if (!themes.includes(theme)) theme = "system";
    $("theme").addEventListener("click", () => {
        theme = themes[(themes.indexOf(theme) + 1) % themes.length];
        try { localStorage.setItem("tidegate-theme", theme); } catch { /* for this visit only, then */ }
        applyTheme();
    });
    dark.addEventListener("change", applyTheme);
    applyTheme();
}

chartsStart();
heatStart();
themeStart();
fetch("/v1/page.json").then(r => r.json()).then(page => {
    $("chat").hidden = !page.chat;
    actionsStart(page.actions);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && shown) { heatDraw(); chartsDraw(); } });
connect();
setInterval(watch, 500);
