"""How the evidence report looks, on a screen and on paper."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --bg: #f5f6f5; --card: #fff; --ink: #16201e; --soft: #5d6b68; --line: #dfe4e2;
  --accent: #0f766e; --good: #15803d; --bad: #b42318; --warn: #b45309;
  --mono: ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", Menlo, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #101514; --card: #182120; --ink: #e7eeec; --soft: #94a5a1; --line: #2a3735;
    --accent: #2dd4bf; --good: #4ade80; --bad: #f97066; --warn: #fbbf24;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 900px; margin: 0 auto; padding: 28px 24px 48px; }
header { display: flex; justify-content: space-between; align-items: baseline; gap: 24px; }
header p { margin: 0; text-align: right; color: var(--soft); font-size: 14px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -.01em; }
h2 {
  font-size: 12px; text-transform: uppercase; letter-spacing: .08em; color: var(--soft);
  margin: 0 0 12px; font-weight: 600;
}
h3 { font-size: 14px; margin: 0 0 6px; }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 18px 20px; margin-top: 16px;
}
p { margin: 0 0 10px; }
code { font: 12px/1.6 var(--mono); overflow-wrap: anywhere; }
dl { margin: 0; display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; }
dt { color: var(--soft); overflow-wrap: anywhere; min-width: 0; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.verdict { border-left: 5px solid var(--good); }
.verdict.warn { border-left-color: var(--warn); }
.verdict.bad { border-left-color: var(--bad); }
.verdict > p { font-size: 17px; }
.verdict strong { color: var(--good); }
.verdict.warn strong { color: var(--warn); }
.verdict.bad strong { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px 20px; }
.tiles b {
  display: block; font-size: 22px; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums;
}
.tiles span { color: var(--soft); font-size: 13px; }
.plot { display: block; width: 100%; height: 110px; fill: var(--accent); }
.axis {
  display: flex; justify-content: space-between; margin: 6px 0 0; color: var(--soft);
  font-size: 13px;
}
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 13px; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.events td:not(:last-child) { white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.numbers :is(th, td):not(:first-child) { text-align: right; padding-right: 0; }
.columns { display: grid; grid-template-columns: repeat(3, 1fr); gap: 18px 28px; }
.columns dl { grid-template-columns: 1fr max-content; }
.columns dd { text-align: right; }
.sign div { display: grid; grid-template-columns: 2fr 1fr 2fr; gap: 24px; margin-top: 44px; }
.sign span { border-top: 1px solid var(--ink); padding-top: 4px; color: var(--soft); }
@media (max-width: 640px) {
  .tiles, .columns { grid-template-columns: repeat(2, 1fr); }
  header { display: block; }
  header p { text-align: left; }
  section { overflow-x: auto; }
}
@page { size: A4; margin: 16mm 15mm; }
@media print {
  :root {
    color-scheme: light;
    --bg: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb;
    --accent: #0f766e; --good: #15603d; --bad: #b42318; --warn: #8a4308;
  }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  section { border: 0; border-radius: 0; padding: 0; margin-top: 7mm; break-inside: avoid; }
  section:has(table) { break-inside: auto; }
  .verdict { padding-left: 4mm; }
  .plot, .verdict { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  table { font-size: 9pt; }
  code { font-size: 8pt; }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
