"""The look of the report. One text: the page carries its hash, so no other style can be put in."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#566173;--line:#dde2e9;
--blue:#1d5fae;--blue-soft:#e6eff9;--red:#b3261e;--red-soft:#fdecea;--green:#1b6e3c;--green-soft:#e5f4ea;
--amber:#8a5300;--amber-soft:#fdf1dc;
--mono:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
@media(prefers-color-scheme:dark){:root{--bg:#11161d;--card:#19202a;--ink:#e6eaf0;--soft:#a3afbf;
--line:#2e3947;--blue:#7db4f5;--blue-soft:#1c2c40;--red:#ff9a90;--red-soft:#3a1d1c;--green:#7fd6a0;
--green-soft:#173023;--amber:#f1bf6a;--amber-soft:#35290f}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Liberation Sans",Arial,sans-serif}
main,header,footer,nav{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:clamp(1.7rem,1.2rem + 2.2vw,2.5rem);line-height:1.15;margin:.2rem 0 .5rem;
letter-spacing:-.015em}
h2{font-size:1.3rem;line-height:1.25;margin:0 0 .35rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.35rem 0 .8rem;max-width:46rem}
a{color:var(--blue)}
.brand{color:var(--soft);font-size:.9rem;letter-spacing:.02em}
.period{font-size:1.1rem;margin:0 0 .3rem}
.origin,.hint{color:var(--soft);font-size:.9rem}
.verdict{display:flex;gap:1rem;align-items:flex-start;border-radius:12px;padding:1rem 1.15rem;
margin:1.4rem 0;
border:1px solid currentColor}
.verdict svg{flex:none;width:2.2rem;height:2.2rem}
.verdict strong{display:block;font-size:1.15rem}
.verdict p{max-width:none;margin:.15rem 0 0;color:var(--ink)}
.good{background:var(--green-soft);color:var(--green)}
.bad{background:var(--red-soft);color:var(--red);border-width:2px}
.lead{max-width:56rem;font-size:1.15rem;line-height:1.6;margin:1.2rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;
margin:1.2rem 0 .5rem;
padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.8rem 1rem}
.tiles b{display:block;font-size:1.75rem;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.9rem}
.tiles .alert{background:var(--red-soft);border-color:var(--red)}
.tiles .alert b{color:var(--red)}
nav{margin:1.2rem auto;font-size:.92rem}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;padding:0;margin:0;list-style:none}
nav a{display:inline-block;padding:.25rem 0;text-decoration:none}
nav a:hover{text-decoration:underline}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1.4rem 1.5rem;
margin:0 0 1.2rem;scroll-margin-top:1rem}
footer{color:var(--soft);font-size:.88rem;padding-bottom:3rem}
bdi,code,pre{font-family:var(--mono);font-size:.92em;overflow-wrap:anywhere}
bdi{white-space:pre-wrap;direction:ltr;unicode-bidi:isolate}
bdi.w{font-family:inherit}
bdi.w,code bdi,pre bdi{font-size:inherit}
bdi b{display:inline-block;line-height:1.25;font-weight:600;color:var(--amber);
background:var(--amber-soft);border-radius:3px;padding:0 .15em}
bdi em,.row em{font-style:normal;color:var(--amber);font-family:system-ui,sans-serif}
pre{background:var(--bg);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem;
white-space:pre-wrap;
margin:.4rem 0 1rem}
.wh{font-style:italic;color:var(--amber);background:var(--amber-soft);border-radius:4px;padding:0 .4em}
.none{color:var(--soft);font-style:italic}
.partly{color:var(--red);font-weight:600;font-size:.9rem}
.tag{display:inline-block;border-radius:999px;padding:.05rem .6rem;font-size:.82rem;font-weight:600;
background:var(--blue-soft);color:var(--blue);white-space:nowrap}
.tag.r{background:var(--red-soft);color:var(--red)}
.tag.a{background:var(--amber-soft);color:var(--amber)}
figure{margin:.6rem 0 0}
figcaption{font-size:.9rem;color:var(--soft);margin-top:.6rem}
.key{display:inline-block;width:.75rem;height:.75rem;border-radius:3px;background:var(--blue);
margin-right:.45rem}
.key.r{background:var(--red)}
.bars{display:block;width:100%;overflow:visible}
.bars rect{fill:var(--blue)}
.bars.r rect{fill:var(--red)}
.bars line{stroke:var(--line);stroke-dasharray:3 4}
.bars .base{stroke:var(--soft);stroke-dasharray:none}
.bars text{fill:var(--soft);font-size:12px}
.axis{display:flex;justify-content:space-between;color:var(--soft);font-size:.85rem;margin-top:.3rem}
.axis.one{justify-content:center}
details summary{cursor:pointer}
.more{margin-top:.8rem;font-size:.92rem}
.more>summary{color:var(--blue);padding:.2rem 0}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th{text-align:left;color:var(--soft);font-weight:600;font-size:.85rem;border-bottom:1px solid var(--line);
padding:.4rem .8rem .4rem 0;vertical-align:bottom}
td{border-bottom:1px solid var(--line);padding:.5rem .8rem .5rem 0;vertical-align:top}
tr>:last-child{padding-right:0}
tbody tr:last-child td{border-bottom:0}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.wide td{min-width:0}
.wide td:first-child{min-width:6.5rem}
.nw{white-space:nowrap}
.ask{table-layout:fixed}
.ask th:nth-child(2){width:40%}
.ask th:nth-child(3){width:5rem}
code.long{font-size:.85em}
dl{display:grid;grid-template-columns:minmax(9rem,auto) 1fr;gap:.35rem 1.2rem;margin:.6rem 0;
font-size:.95rem}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
.tree{font-size:.92rem;margin-top:.6rem}
.tree details{border-top:1px solid var(--line)}
.tree summary{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;
padding:.4rem 0 .4rem 1.3rem;
position:relative;list-style:none}
.tree summary::-webkit-details-marker{display:none}
.tree summary::before{content:"";position:absolute;left:.25rem;top:.85rem;border:solid var(--soft);
border-width:0 2px 2px 0;width:7px;height:7px;transform:rotate(-45deg)}
.tree details[open]>summary::before{transform:rotate(45deg);top:.75rem}
.tree summary:hover{background:var(--bg)}
.tree summary>bdi{font-weight:600;min-width:0;flex:0 1 auto}
.tree summary>span:last-child{color:var(--soft);font-size:.94em;margin-left:auto;text-align:right}
.in{padding-left:1.3rem}
.in .in .in .in .in .in{padding-left:.25rem}
.row{display:grid;grid-template-columns:minmax(0,1fr) 4.2rem 18.5rem 4.6rem 7.4rem;gap:0 .9rem;
padding:.32rem 0;border-top:1px solid var(--line);align-items:baseline}
.row>:nth-child(2),.row>:nth-child(4){text-align:right;font-variant-numeric:tabular-nums}
.row>:nth-child(3){color:var(--soft);font-size:.94em}
.row>:nth-child(5){text-align:right}
.row .wh{justify-self:start}
.row code{color:var(--soft)}
.row.head{color:var(--soft);font-weight:600;font-size:.85rem;border-top:0}
.row em{display:block}
.rest{margin:0;padding:.4rem 0;color:var(--soft);font-style:italic;border-top:1px solid var(--line);
max-width:none}
ol.steps{padding-left:1.3rem;margin:.6rem 0}
ol.steps li{margin-bottom:.8rem}
ol.steps li>p{margin:.2rem 0}
@media screen and (max-width:46rem){
main,header,footer,nav{padding-left:.9rem;padding-right:.9rem}
header{padding-top:1.4rem}
section{padding:1.05rem 1rem;border-radius:12px}
.tiles{grid-template-columns:1fr 1fr;gap:.6rem}
.tiles b{font-size:1.45rem}
.lead{max-width:56rem;font-size:1.05rem}
.row{grid-template-columns:auto auto 1fr;gap:0 .8rem;padding:.45rem 0}
.row>:first-child{grid-column:1/-1}
.row>:nth-child(2){text-align:left;font-weight:600}
.row>:nth-child(3){grid-column:1/-1;grid-row:3}
.row>:nth-child(4){text-align:left}
.row.head{display:none}
.in{padding-left:.8rem}
.tree summary>span:last-child{flex-basis:100%;margin-left:0;text-align:left}
.tree summary>bdi{flex-basis:100%}
.wide thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.wide,.wide tbody,.wide tr{display:block}
.wide tr{border:1px solid var(--line);border-radius:10px;padding:.5rem .8rem;margin:.6rem 0}
.wide td{display:grid;grid-template-columns:7.2rem minmax(0,1fr);gap:.6rem;border:0;padding:.16rem 0;
text-align:left;
white-space:normal}
.wide td::before{content:attr(data-l);color:var(--soft);font-size:.88rem}
dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.55rem}}
@media print{
@page{margin:14mm}
:root{color-scheme:light;--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;--blue:#1d5fae;
--blue-soft:#fff;--red:#b3261e;--red-soft:#fff;--green:#1b6e3c;--green-soft:#fff;--amber:#6b4000;
--amber-soft:#fff}
html{font-size:12.5px}
body{font-size:1rem}
.tiles{grid-template-columns:repeat(6,1fr)}
main,header,footer{max-width:none;padding:0}
nav{display:none}
section{border:0;border-top:1px solid var(--line);border-radius:0;padding:.8rem 0;margin:0}
h2,summary,figcaption{break-after:avoid}
.row,tr,.tiles,figure,.verdict,li{break-inside:avoid}
.row{grid-template-columns:minmax(0,1fr) 3rem 15rem 4rem 6.4rem}
.bars rect,.key{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
