"""The pieces of a page that needs nothing beside itself: style, tables, figures, figures in words.

Light or dark as the reader's system is; the colours are told apart by colour-blind readers in both.
"""

from collections.abc import Collection, Iterable, Sequence
from html import escape

from utils.report import plots

STYLE = """
:root{color-scheme:light dark;--page:#fcfcfb;--ink:#1c1c1e;--soft:#5d5f66;--rule:#dfe0e3;--band:#f0f1f3;
--k0:#0068a8;--k1:#c04e00;--k2:#00785a;--k3:#a04483;--k4:#3d3e44}
@media(prefers-color-scheme:dark){:root{--page:#17181b;--ink:#ececee;--soft:#a3a6ad;--rule:#36383e;--band:#202226;
--k0:#5cb3ee;--k1:#ff9a5c;--k2:#43cda3;--k3:#e69fd0;--k4:#d4d5d9}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:71rem;background:var(--page);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .3rem}h2{font-size:1.2rem;margin:2.6rem 0 .6rem}
p{max-width:46rem;margin:.5rem 0}.soft,figcaption,summary{color:var(--soft);font-size:.9rem}
code{font:.9em ui-monospace,monospace}pre{margin:0;padding:.7rem .9rem;background:var(--band);white-space:pre-wrap}
.note{border-left:4px solid var(--k1);background:var(--band);padding:.6rem .9rem}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem 2.5rem;margin:1.2rem 0}
.tiles b{display:block;font-size:1.7rem;line-height:1.2;font-weight:600}
.grid{display:grid;gap:1.8rem 2.2rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,18rem),1fr))}
figure{margin:0;min-width:0}figcaption{margin-bottom:.5rem}
figcaption i{font-style:normal;margin-right:.9rem;display:inline-block}
.scroll{overflow-x:auto;overflow-wrap:normal}.scroll+.scroll{margin-top:1.2rem}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .9rem .35rem 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
.sub td:first-child{padding-left:1.1rem}
th{color:var(--soft);font-weight:500}.l{text-align:left}tr.strong td{font-weight:650}
details{margin:.8rem 0}summary{cursor:pointer}
svg{display:block;width:100%;height:auto}svg text{font:12.5px system-ui,sans-serif;fill:var(--soft)}
svg .label{fill:var(--ink)}svg .faint{font-size:10.5px}svg .on{fill:var(--page);font-weight:600}
.rule{stroke:var(--rule)}.axis{stroke:var(--soft)}
.band{fill:var(--band)}.line{fill:none;stroke:currentColor;stroke-width:1.8}.thin{stroke-width:1.2}.bold{stroke-width:3}
.broken{stroke-dasharray:7 4}.pale{stroke-opacity:.55}
.dash{stroke-dasharray:4 4;stroke-width:1.2;color:var(--soft)}
.mark{fill:currentColor;fill-opacity:.75;stroke:var(--page);stroke-width:.6}.bar,.cell{fill:currentColor}
.box{fill:var(--page);stroke:var(--soft)}.layer{stroke:var(--ink);stroke-width:1.8}svg .layer+text{fill:var(--ink)}
svg .letter{fill:currentColor;font-weight:650}
.k0{color:var(--k0)}.k1{color:var(--k1)}.k2{color:var(--k2)}.k3{color:var(--k3)}.k4{color:var(--k4)}.ink{color:var(--ink)}
@media(max-width:600px){th,td{padding-right:.7rem}th,td.l:first-child{white-space:normal}td.l:first-child{min-width:8rem}
svg text{font-size:14.5px}svg .faint{font-size:12px}}
"""


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {round(seconds) % 60:02d} s"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    left: Collection[int] = (0,),
    strong: Collection[str] = (),
    beneath: bool = False,
) -> str:
    """A table that scrolls in its own box.

    Args:
        left: columns of words.
        strong: names of the rows that stand out.
        beneath: whether the other rows are parts of the one above that stands out.
    """

    def cells(name: str, values: Sequence[object]) -> str:
        words = (
            plots.tag(name, escape(str(v)), **({"class_": "l"} if i in left else {})) for i, v in enumerate(values)
        )
        return "".join(words)

    def line(row: Sequence[object]) -> str:
        class_ = "strong" if row[0] in strong else "sub" if beneath else ""
        return plots.tag("tr", cells("td", row), **({"class_": class_} if class_ else {}))

    content = plots.tag("thead", plots.tag("tr", cells("th", head))) + plots.tag("tbody", "".join(map(line, rows)))
    return plots.tag("div", plots.tag("table", content), class_="scroll", tabindex=0)


def figure(picture: str, caption: str, keys: Iterable[tuple] = ()) -> str:
    """A drawing under its caption and its legend; all plain text.

    Args:
        keys: (kind, words) of marks, or (kind, words, sign) of something else.
    """
    signs = [(k, words, *sign) if sign else (k, words, plots.GLYPHS[k]) for k, words, *sign in keys]
    legend = "".join(f'<i><span class="k{k}">{sign}</span> {escape(words)}</i>' for k, words, sign in signs)
    return f"<figure><figcaption>{escape(caption)}{'<br>' if legend else ''}{legend}</figcaption>{picture}</figure>"


def section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>" if any(parts) else ""


def tiles(values: Iterable[tuple[str, str]]) -> str:
    return plots.tag(
        "div", "".join(f"<div><b>{escape(v)}</b>{escape(name)}</div>" for name, v in values), class_="tiles"
    )


def grid(*parts: str, small: bool = False) -> str:
    return plots.tag("div", "".join(parts), class_="grid small" if small else "grid") if any(parts) else ""


def page(title: str, *parts: str) -> str:
    """The whole HTML document."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>{chr(10).join(filter(None, parts))}</main></body></html>\n"
    )
