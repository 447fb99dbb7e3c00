"""How the report looks."""

STYLE = """
:root { color-scheme: light dark; --ink: #0f172a; --soft: #64748b; --line: #e2e8f0; --paper: #fff; --plot: #fff; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e2e8f0; --soft: #94a3b8; --line: #334155; --paper: #0f172a; --plot: #f8fafc; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.8rem; letter-spacing: -.01em; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.15rem; }
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { padding: .75rem; border: 1px solid var(--line); border-radius: .4rem; overflow-x: auto; }
.wide, details { overflow-x: auto; }
section[id] { content-visibility: auto; contain-intrinsic-size: auto 60rem; }
table { border-collapse: collapse; margin: .25rem 0 1rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: pre-line; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.whole { white-space: nowrap; }
.prose td:last-child { min-width: 18rem; }
small { color: var(--soft); }
a { color: inherit; }
a.plain { text-decoration: none; }
img { max-width: 100%; margin: .5rem .5rem .5rem 0; vertical-align: top;
  background: var(--plot); border-radius: .4rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--soft); }
.badge { display: inline-block; padding: 0 .5rem; border-radius: 1rem;
  font-size: .78rem; font-weight: 600; color: #fff; print-color-adjust: exact; }
.pass { background: #15803d; }
.fail { background: #b91c1c; }
.inconclusive { background: #b45309; }
.note, .trouble { margin: 1rem 0; padding: .6rem .9rem; border-left: 4px solid #b45309;
  background: color-mix(in srgb, #b45309 10%, transparent); }
.trouble { border-color: #b91c1c; background: color-mix(in srgb, #b91c1c 10%, transparent); }
@media print {
  main { max-width: none; padding: 0; }
  .wide, details { overflow: visible; }
  section[id] { content-visibility: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
