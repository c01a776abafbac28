"""The style of pages: both modes, any width."""

STYLE = """
:root{--ground:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5d6878;--line:#e2e6ec;--bar:#3b6fd4;--far:#d9822b;
--rest:#b9c2cf;--track:#eef1f5;--error:#c62f3b;--warning:#b7791f;--note:#4a7a8c;--code:#f1f4f8;--good:#2c8a5b}
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--card:#1a2029;--ink:#e4e9f0;--soft:#98a4b5;
--line:#2b3441;--bar:#6c9bf2;--far:#f0a458;--rest:#4d596a;--track:#242d39;--error:#ff7b84;--warning:#f0b95a;
--note:#7fb8cc;--code:#222a35;--good:#5fc794}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:24px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:17px;margin:36px 0 12px}
p.lead{margin:0 0 18px;color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:10px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px}
.tile b{display:block;font-size:22px;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.3}
.tile span{color:var(--soft);font-size:13px}
.tile.error b{color:var(--error)}.tile.warning b{color:var(--warning)}.tile.note b{color:var(--note)}
.tile.good b{color:var(--good)}
ul.findings{list-style:none;margin:0;padding:0;display:grid;gap:8px}
.finding{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--note);
border-radius:8px;padding:10px 14px;overflow-wrap:anywhere}
.finding.error{border-left-color:var(--error)}.finding.warning{border-left-color:var(--warning)}
.finding .kind{font-size:12px;font-weight:650;text-transform:uppercase;letter-spacing:.04em;color:var(--note);
margin-right:8px}
.finding.error .kind{color:var(--error)}.finding.warning .kind{color:var(--warning)}
.finding a{color:inherit;font-weight:600;text-decoration-color:var(--rest);text-underline-offset:3px}
.finding p{margin:2px 0 0}
.finding code{display:block;margin-top:6px;padding:5px 9px;background:var(--code);border-radius:6px;
font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap}
details.more{margin-top:10px}
details.more>summary{cursor:pointer;color:var(--soft);padding:4px 0 10px}
.columns{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:14px}
.column{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;min-width:0;
scroll-margin-top:12px}
.column:target{outline:2px solid var(--bar)}
.column h3{margin:0;font-size:15px;overflow-wrap:anywhere}
.chips{display:flex;flex-wrap:wrap;gap:5px;margin:4px 0 10px}
.chip{font-size:12px;padding:1px 8px;border-radius:20px;background:var(--track);color:var(--soft)}
.chip.target{background:var(--bar);color:var(--card);font-weight:600}
.chip.error{color:var(--error)}.chip.warning{color:var(--warning)}
figure{margin:0 0 10px}
svg.histogram{display:block;width:100%;height:84px}
.bar{fill:var(--bar)}.bar.far{fill:var(--far)}.bar:hover{opacity:.7}
.axis{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
.ends{display:flex;justify-content:space-between;color:var(--soft);font-size:12px;
font-variant-numeric:tabular-nums;margin-top:2px}
.ranked{margin:0 0 10px;display:grid;gap:3px}
.rank{display:grid;grid-template-columns:minmax(0,9.5em) 1fr 3.4em;gap:8px;align-items:center;font-size:13px}
.word{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.track{background:var(--track);border-radius:3px;height:11px;overflow:hidden}
.track i{display:block;height:100%;background:var(--bar);border-radius:3px}
.rank.rest .track i{background:var(--rest)}.rank.rest .word{color:var(--soft)}
.share{text-align:right;color:var(--soft);font-variant-numeric:tabular-nums}
dl{display:grid;grid-template-columns:auto 1fr;gap:1px 12px;margin:0;font-size:13px}
dt{color:var(--soft)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.gone{height:6px;border-radius:3px;background:var(--track);overflow:hidden;margin:0 0 10px}
.gone i{display:block;height:100%;background:var(--far)}
footer{margin-top:40px;color:var(--soft);font-size:13px}
@media(max-width:480px){main{padding:18px 12px 40px}h1{font-size:20px}.tile b{font-size:19px}
.tiles{grid-template-columns:repeat(2,1fr)}.rank{grid-template-columns:minmax(0,7.5em) 1fr 3.4em}}
@media print{body{background:#fff}.finding,.column,.tile{break-inside:avoid}}
"""
"""CSS, the same for every page."""
