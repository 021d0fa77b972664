"""One HTML file that needs nothing else: what a report says, and how it looks on paper, in the dark and on a phone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dydiff_env import __version__


@dataclass(frozen=True)
class Chart:
    """A figure and what it shows.

    Args:
        figure: the picture.
        caption: one or two sentences, plain text.
        stops: of a slider below the picture; at stop i, traces whose ``meta`` is another number than i are hidden.
        notes: one line a stop, said beside the slider.
        begin: the stop shown first.
    """

    figure: go.Figure
    caption: str
    stops: Sequence[str] = ()
    notes: Sequence[str] = ()
    begin: int = 0


@dataclass(frozen=True)
class Table:
    """Rows of plain values under column names; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True)
class Facts:
    """Plain values by their names; shown folded, under a name."""

    name: str
    record: dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph of plain text, and parts."""

    title: str
    lead: str
    parts: list[Chart | Table | Facts] = field(default_factory=list)


@dataclass(frozen=True)
class Headline:
    """One number that stands out, and what it is."""

    value: str
    meaning: str


def render(title: str, headlines: Sequence[Headline], sections: Sequence[Section]) -> str:
    """The page. The same content gives the same bytes."""
    body: list[str] = []
    charts: list[dict[str, Any]] = []
    for number, section in enumerate(sections):
        cells = [f"<h2 id='s{number}'>{escape(section.title)}</h2><p class='lead'>{escape(section.lead)}</p>"]
        for drawn, parts in groupby(section.parts, lambda part: isinstance(part, Chart)):
            inner = ""
            for part in parts:
                if isinstance(part, Chart):
                    inner += _chart(part, len(charts))
                    charts.append({"figure": json.loads(part.figure.to_json()), "notes": list(part.notes)})
                else:
                    inner += _table(part) if isinstance(part, Table) else _facts(part)
            cells.append(f"<div class='charts'>{inner}</div>" if drawn else inner)
        body.append(f"<section>{''.join(cells)}</section>")
    tiles = "".join(
        f"<li><b>{escape(line.value)}</b><span>{escape(line.meaning)}</span></li>" for line in headlines
    )
    links = "".join(f"<a href='#s{i}'>{escape(section.title)}</a>" for i, section in enumerate(sections))
    data = json.dumps(charts, allow_nan=False).replace("<", "\\u003c")  # no name in it can close the script
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'><link rel='icon' href='data:,'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><header><h1>{escape(title)}</h1>"
        f"<nav>{links}</nav></header><main><ul class='tiles'>{tiles}</ul>"
        "<noscript><p>The charts need JavaScript; the tables do not.</p></noscript>"
        f"{''.join(body)}</main><footer>Made by dydiff-env {__version__} "
        "(DyDiff, arXiv 2405.19189).</footer>"
        f"<script>{get_plotlyjs()}</script><script>const CHARTS={data};{SCRIPT}</script></body></html>"
    )


def _chart(chart: Chart, number: int) -> str:
    slider = ""
    if chart.stops:
        ticks = "".join(f"<span>{escape(stop)}</span>" for stop in chart.stops)
        slider = (
            f"<div class='slider'><output id='n{number}' for='r{number}'></output>"
            f"<input type='range' id='r{number}' min='0' max='{len(chart.stops) - 1}' value='{chart.begin}' step='1' "
            f"aria-label='Refinements'><div class='ticks'>{ticks}</div></div>"
        )
    height = chart.figure.layout.height or 340
    return (
        f"<figure class='{'wide' if chart.stops else ''}'><div class='plot' id='c{number}' role='img' "
        f"aria-label='{escape(chart.caption, quote=True)}' style='height:{height}px;max-height:calc(100vw + 1.5rem)'></div>{slider}"
        f"<figcaption>{escape(chart.caption)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(row[0]))}</th>"
        + "".join(f"<td>{escape(number(value))}</td>" for value in row[1:])
        + "</tr>"
        for row in table.rows
    )
    caption = f"<p class='caption'>{escape(table.caption)}</p>" if table.caption else ""
    return (
        f"{caption}<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _facts(facts: Facts) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(number(value))}</td></tr>"
        for name, value in facts.record.items()
    )
    return f"<details><summary>{escape(facts.name)}</summary><div class='scroll'><table class='facts'>{rows}</table></div></details>"


def number(value: Any) -> str:
    """A value as a person reads it: four digits, thousands apart, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, list):
        return ", ".join(map(number, value))
    if isinstance(value, float):
        return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


STYLE = """
:root{--ink:#1f2933;--soft:#5b6773;--line:#dfe4e8;--back:#fff;--card:#f6f8f9;--wall:#cfd6dc;--accent:#2a6f97}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9ed;--soft:#9aa6b1;--line:#2e3840;--back:#12171b;--card:#1a2127;
--wall:#3b4751;--accent:#6db3dd}}
*{box-sizing:border-box}html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
header,main,footer{max-width:70rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.6rem}h1{font-size:1.7rem;line-height:1.2;margin:0 0 .6rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.6rem 0 .2rem}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem}nav a{color:var(--accent);text-decoration:none;padding:.2rem 0}
nav a:hover{text-decoration:underline}
.lead{color:var(--soft);margin:.1rem 0 .6rem;max-width:46rem}
.tiles{list-style:none;padding:0;margin:1.4rem 0 0;display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr))}
.tiles li{background:var(--card);border-radius:.7rem;padding:.8rem 1rem}
.tiles b{display:block;font-size:1.6rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.86rem;line-height:1.35;display:block}
.charts{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.charts,.scroll,details{margin-bottom:1rem}
figure{margin:0;min-width:0;background:var(--card);border-radius:.7rem;padding:.7rem .8rem .9rem}
.wide{grid-column:1/-1}
figcaption{color:var(--soft);font-size:.88rem;line-height:1.4;padding:.3rem .3rem 0}
.slider{max-width:30rem;margin:.3rem auto .5rem;text-align:center}
.slider output{display:block;min-height:1.6em;font-variant-numeric:tabular-nums}
.slider input{width:100%;height:2rem;margin:0;accent-color:var(--accent)}
.ticks{display:flex;justify-content:space-between;color:var(--soft);font-size:.8rem;line-height:1.2}
.ticks span{width:0;flex:0 0 1rem;text-align:center;white-space:nowrap;display:flex;justify-content:center}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
.caption{color:var(--soft);font-size:.9rem;margin:1rem 0 .2rem}
th,td{padding:.38rem .9rem .38rem 0;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap}
thead th{vertical-align:bottom}th:first-child{text-align:left;font-weight:500}thead th{color:var(--soft);font-weight:500}
.facts td{text-align:left;overflow-wrap:anywhere;white-space:normal}.facts th{color:var(--soft);width:1%}
details .scroll{margin:.5rem 0 0}details{background:var(--card);border-radius:.7rem;padding:.6rem 1rem}
summary{cursor:pointer;font-weight:500;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:.85rem;padding-top:2.5rem;padding-bottom:2rem}
.plot{touch-action:pan-y}.plot text{fill:var(--ink)!important}
.plot .xtick text,.plot .ytick text{fill:var(--soft)!important}
.plot .gridlayer path,.plot .zerolinelayer path{stroke:var(--line)!important}
.plot .shapelayer path{fill:var(--wall)!important;stroke:none!important}
.plot .hoverlayer text{fill:#fff!important}
@media(max-width:520px){header,main,footer{padding-left:.9rem;padding-right:.9rem}figure{padding:.4rem .4rem .7rem;margin:0 -.3rem}
.tiles{grid-template-columns:1fr 1fr}.tiles b{font-size:1.35rem}.facts th{white-space:normal;width:40%}}
@media print{figure,details{break-inside:avoid}}
"""

SCRIPT = """
CHARTS.forEach(({figure,notes},i)=>{
  const at='c'+i, slider=document.getElementById('r'+i);
  const show=()=>{const stop=+slider.value;document.getElementById('n'+i).textContent=notes[stop]||'';
    return figure.data.map(t=>t.meta===undefined||t.meta===null||t.meta===stop)};
  delete figure.layout.height;  // the element's own, which a narrow screen lowers
  if(slider)show().forEach((v,k)=>figure.data[k].visible=v);
  Plotly.newPlot(at,figure.data,figure.layout,{responsive:true,displayModeBar:false});
  if(slider)slider.addEventListener('input',()=>Plotly.restyle(at,{visible:show()}));
});
"""
