"""The table: what was measured, in Markdown."""

import statistics

import profiling

COLUMNS = "| | tool | wall s | first s | runs | ÷ haul | CPU s | peak MiB |\n|---|---|--:|--:|--:|--:|--:|--:|"
WORDS = """\
*wall*: median; haul's *first* run of each line, with nothing remembered of the server, is shown by itself and not in
its median. *÷ haul*: how many times as long as haul the tool took; in haul's own line (bold) the fastest peer ÷ haul,
above 1 where haul is the fastest. *CPU*: user and system seconds of the client and all its children. *peak*: the most
resident memory, summed over the client's processes, sampled every 25 ms. *> N s*: given up after N seconds. All tools
of a line took turns in one run on one machine, the server and the slow link at work on the same {cores} cores: only
ratios within a line mean something.
"""


PROFILE = """\
Shares of *busy*, the CPU seconds of all of haul's threads together; what *wall* has beyond it, haul waited for the
server, the link or a core.
"""


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def wall(result):
    """Returns the median wall time, or None where there is none."""
    return median(result["runs"], "wall") if result["runs"] else None


def best_peer(cell):
    """Returns (tool, wall) of the fastest peer, or None."""
    peers = [(wall(result), tool) for tool, result in cell["tools"].items() if tool != "haul" and wall(result)]
    return min(peers)[::-1] if peers else None


def table(results):
    parts = [f"# haul and its peers\n\n{about(results)}\n"]
    for scenario in results["scenarios"]:
        parts.append(f"## {scenario['title']}\n\n{limits(scenario)}{COLUMNS}\n" + "\n".join(
            row for cell in scenario["cells"] for row in rows(cell)) + "\n")
    parts.append(f"## In short\n\n{summary(results)}\n")
    if profiles := list(profiled(results)):
        heads = " | ".join(profiling.ORDER)
        line = "|---|--:|--:|" + "--:|" * len(profiling.ORDER)
        parts.append(f"## Where haul's time goes\n\n{PROFILE}\n| | wall s | busy s | {heads} |\n{line}\n"
                     + "\n".join(profiles) + "\n")
    notes = results["notes"]
    if notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
    parts.append(WORDS.format(cores=results["machine"]["cores"]))
    return "\n".join(parts)


def about(results):
    machine, tcp = results["machine"], results["machine"]["tcp"]
    buffers = "/".join(f"{int(tcp[key]) / (1 << 20):.0f}" for key in ("rmem", "wmem"))
    peers = ", ".join(results["versions"].values())
    return (f"{results['date']}, haul {results['haul']}, {machine['processor']}, {machine['cores']} cores, "
            f"{machine['kernel']}, TCP with {tcp['on the link']} on the link, buffers up to {buffers} MiB; "
            f"peers: {peers}.")


def limits(scenario):
    if not scenario["limits"]:
        return ""
    return "Limits: " + "; ".join(f"{what}: {seconds:.2f} s" for what, seconds in scenario["limits"]) + ".\n\n"


def rows(cell):
    haul = wall(cell["tools"].get("haul", {"runs": []}))
    for number, (tool, result) in enumerate(cell["tools"].items()):
        name = f"{cell['protocol']} {cell['direction']}" if number == 0 else ""
        yield row(name, tool, result, haul, best_peer(cell))


def row(name, tool, result, haul, best):
    runs, first = result["runs"], result.get("first")
    shown = f"{first['wall']:.2f}" if first else ""
    if not runs:
        late = result["problem"] == "patience"
        why = f"> {result['patience']:.0f}" if late else result["problem"]
        ratio = f"> {result['patience'] / haul:.1f}" if late and haul else ""
        return f"| {name} | {tool} | {why} | {shown} | | {ratio} | | |"
    took = wall(result)
    if tool == "haul":
        tool, ratio = "**haul**", f"**{best[1] / took:.2f}**" if best else ""
    else:
        ratio = f"{took / haul:.2f}" if haul else ""
    return (f"| {name} | {tool} | {took:.2f} | {shown} | {len(runs)} | {ratio} | {median(runs, 'cpu'):.2f} "
            f"| {median(runs, 'peak_mib'):.0f} |")


def summary(results):
    """Returns the fastest peer ÷ haul of every line, in one table."""
    heads = [f"{protocol} {direction}" for protocol in ("SFTP", "FTP", "FTPS") for direction in ("get", "put")]
    lines = [f"| fastest peer ÷ haul | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}"]
    for scenario in results["scenarios"]:
        cells = {f"{cell['protocol']} {cell['direction']}": cell for cell in scenario["cells"]}
        shown = [in_short(cells[head]) if head in cells else "" for head in heads]
        lines.append(f"| ({scenario['letter']}) {scenario['short']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def profiled(results):
    """Returns the rows that tell where haul's time goes."""
    for scenario in results["scenarios"]:
        for cell in scenario["cells"]:
            runs, shares = cell["tools"].get("haul", {"runs": []})["runs"], cell.get("profile")
            if runs and shares:
                row = " | ".join(f"{shares.get(kind, 0):.0%}" for kind in profiling.ORDER)
                yield (f"| ({scenario['letter']}) {cell['protocol']} {cell['direction']} | {median(runs, 'wall'):.2f} "
                       f"| {median(runs, 'cpu'):.2f} | {row} |")


def in_short(cell):
    haul, best = wall(cell["tools"].get("haul", {"runs": []})), best_peer(cell)
    return f"{best[1] / haul:.2f} ({best[0]})" if haul and best else "-"
