"""The plot: a row of panels for each scenario, a bar for each tool; one SVG that needs nothing else."""

from html import escape

import report

PANEL, GAP, BAR, TOP = 210, 18, 17, 34
NAMES, NUMBERS = 62, 46
CELLS = [(protocol, direction) for protocol in ("SFTP", "FTP", "FTPS") for direction in ("get", "put")]
# A bar ends here, with a break in it: else one slow tool makes all others invisible.
MOST_TIMES_HAUL = 6
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #222 }
.title { font-size: 14px; font-weight: 600 }
.head { font-size: 11px; font-weight: 600; fill: #555 }
.tool { text-anchor: end }
.peer { fill: #b4bcc8 } .haul { fill: #d9580d } .late { fill: url(#late) }
.limit { stroke: #1a7f5a; stroke-width: 1.5; stroke-dasharray: 3 2 }
.break { stroke: #fff; stroke-width: 3 }
.none { fill: #999 }
"""
LATE = """<pattern id="late" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect width="6" height="6" fill="#e6e9ee"/><rect width="2" height="6" fill="#b4bcc8"/></pattern>"""


def svg(results):
    parts, y = [], 44
    for scenario in results["scenarios"]:
        drawn, height = scenario_row(scenario, y)
        parts.append(drawn)
        y += height
    width = GAP + len(CELLS) * (PANEL + GAP)
    head = (f'<text x="{GAP}" y="22" class="title">Seconds to move the data: shorter is better</text>'
            f'<text x="{width - GAP}" y="22" text-anchor="end">orange: haul; dashed: the physical limit; '
            f"hatched: given up; white gap: longer than {MOST_TIMES_HAUL} × haul</text>")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">'
            f"<style>{STYLE}</style><defs>{LATE}</defs>"
            f'<rect width="{width}" height="{y}" fill="#fff"/>{head}\n' + "\n".join(parts) + "\n</svg>\n")


def scenario_row(scenario, y):
    """Returns the drawing of one scenario and its height."""
    cells = {(cell["protocol"], cell["direction"]): cell for cell in scenario["cells"]}
    most = max((len(cell["tools"]) for cell in cells.values()), default=0)
    parts = [f'<text x="{GAP}" y="{y + 14}" class="title">{escape(scenario["title"])}</text>']
    limit = scenario["limits"][0][1] if scenario["limits"] else None
    for number, key in enumerate(CELLS):
        if key in cells:
            parts.append(panel(cells[key], limit, GAP + number * (PANEL + GAP), y + TOP))
    return "\n".join(parts), TOP + 22 + most * BAR + 20


def panel(cell, limit, x, y):
    parts = [f'<text x="{x + NAMES}" y="{y}" class="head">{cell["protocol"]} {cell["direction"]}</text>']
    walls = {tool: report.wall(result) for tool, result in cell["tools"].items()}
    known = [wall for wall in walls.values() if wall]
    if not known:
        return parts[0]
    # Fastest first, those without a time last.
    order = sorted(walls, key=lambda tool: (walls[tool] is None, walls[tool] or 0))
    end = min(max(known), MOST_TIMES_HAUL * (walls.get("haul") or max(known)))
    room = PANEL - NAMES - NUMBERS
    for number, tool in enumerate(order):
        parts.append(bar(tool, cell["tools"][tool], walls[tool], end, x, y + 6 + number * BAR, room))
    if limit and limit <= end:
        at = x + NAMES + room * limit / end
        parts.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{y + 4}" y2="{y + 8 + len(order) * BAR}"/>')
    return "\n".join(parts)


def bar(tool, result, wall, end, x, y, room):
    left, middle = x + NAMES, y + BAR / 2 + 3
    name = f'<text x="{left - 5}" y="{middle}" class="tool">{escape(tool)}</text>'
    if wall is None:
        late = result["problem"] == "patience"
        text = f"&gt; {result['patience']:.0f}" if late else escape(result["problem"])
        drawn = f'<rect class="late" x="{left}" y="{y}" width="{room}" height="{BAR - 4}"/>' if late else ""
        at = left + room + 4 if late else left + 2
        return f'{name}{drawn}<text x="{at}" y="{middle}" class="none">{text}</text>'
    length = max(1.5, room * min(wall, end) / end)
    kind = "haul" if tool == "haul" else "peer"
    cut = f'<line class="break" x1="{left + room - 14}" x2="{left + room - 8}" y1="{y + BAR - 3}" y2="{y - 1}"/>'
    return (f'{name}<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="{BAR - 4}"/>'
            f'{cut if wall > end * 1.001 else ""}<text x="{left + length + 4:.1f}" y="{middle}">{seconds(wall)}</text>')


def seconds(wall):
    return f"{wall:.2f}" if wall < 10 else f"{wall:.1f}" if wall < 100 else f"{wall:.0f}"
