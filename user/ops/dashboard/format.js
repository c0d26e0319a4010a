/* Numbers and elements. Everything that comes in becomes text, never markup. */
const $ = id => document.getElementById(id);

function make(tag, text, cls) {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (cls) e.className = cls;
    return e;
}

/* Writes only what changed: a selection and a screen reader's place survive. */
function say(e, text) {
    if (e.textContent !== text) e.textContent = text;
}

/* "5" for "5.0". */
const round = (v, digits) => v.toFixed(digits).replace(/\.0+$/, "");

function count(v) {
    if (v === null || v === undefined) return "–";
    if (v < 10000) return v < 10 ? round(v, 1) : Math.round(v).toLocaleString("en");
    for (const unit of ["k", "M", "G"]) {
        v /= 1000;
        if (v < 999.5 || unit === "G") return round(v, v < 99.95 ? 1 : 0) + unit;
    }
}

function delay(ns) {
    if (ns === null || ns === undefined) return "–";
    if (ns < 999.5e3) return Math.round(ns / 1e3) + " µs";
    if (ns < 999.5e6) return round(ns / 1e6, ns < 9.95e6 ? 1 : 0) + " ms";
    return round(ns / 1e9, 1) + " s";
}

function bytes(v) {
    if (v === null || v === undefined) return "–";
    for (const unit of ["B", "KiB", "MiB"]) {
        if (v < 1000) return round(v, unit === "B" || v >= 99.95 ? 0 : 1) + " " + unit;
        v /= 1024;
    }
    return round(v, 1) + " GiB";
}

const percent = v => v === null || v === undefined ? "–" : round(v * 100, v < .0995 ? 1 : 0) + " %";

function span(s) {
    s = Math.floor(s);
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " min";
    if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
    return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const sum = (list, key) => list.reduce((n, o) => n + o[key], 0);
const most = (list, key) => list.reduce((n, o) => Math.max(n, o[key]), 0);
