"""A record of rounds as an SVG: one row of bars for each scenario and metric that says which way is better, a bar for each peer."""
import statistics
from xml.sax.saxutils import escape

COLOURS = ["#2563eb", "#9ca3af", "#d97706", "#059669", "#7c3aed", "#db2777"]
WIDTH, LEFT, RIGHT, BAR, GAP = 900, 190, 190, 15, 6


def bars(record):
    """(scenario, metric label, better, decimals, [(peer, median, least, most)])"""
    for s in record["scenarios"]:
        for m in s["metrics"]:
            if not m["better"]:
                continue
            out = []
            for name, rows in s["rows"].items():
                v = [r[m["key"]] for r in rows if r.get(m["key"]) is not None]
                if v:
                    out.append((name, statistics.median(v), min(v), max(v)))
            if out:
                yield s["title"], m["label"], m["better"], m["decimals"], out


def text(x, y, words, anchor="start", weight="normal", size=12, colour="#111827"):
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def svg(record):
    parts, y, last = [], 46, None
    names = list(dict.fromkeys(n for s in record["scenarios"] for n in s["rows"]))
    colour = {n: COLOURS[i % len(COLOURS)] for i, n in enumerate(names)}
    for title, label, better, decimals, peers in bars(record):
        if title != last:
            y += 20
            parts.append(text(10, y, title, weight="bold", size=13))
            y, last = y + 8, title
        y += 16
        parts.append(text(10, y, f"{label} ({'more' if better == 'high' else 'less'} is better)", colour="#6b7280"))
        y += 6
        most = max(p[3] for p in peers) or 1
        scale = (WIDTH - LEFT - RIGHT) / most
        for name, mid, low, high in peers:
            middle = y + BAR / 2
            parts.append(text(LEFT - 8, y + 12, name, anchor="end"))
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{max(mid * scale, 1):.1f}" height="{BAR}" fill="{colour[name]}"/>')
            parts.append(f'<line x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}" y1="{middle}" y2="{middle}" stroke="#111827"/>')
            parts.append(text(f"{LEFT + high * scale + 8:.1f}", y + 12, f"{mid:,.{decimals}f}"))
            y += BAR + GAP
    head = [text(10, 22, f"./dev bench {record['bench']}", weight="bold", size=15),
            text(10, 40, f"{record['machine']}; {record['time']}; bars are medians, lines least to most", colour="#6b7280", size=11)]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 16}" font-family="sans-serif">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(head + parts) + "\n</svg>\n")
