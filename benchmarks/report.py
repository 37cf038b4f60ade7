"""From measurements to ratios: medians over the rounds, with the least and the greatest, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from subjects import OURS
from workloads import WORKLOADS


@dataclass(frozen=True)
class Measurement:
    """One value of one subject in one round; `details` holds what else was seen, `error` why there is no value."""

    round: int
    store: str
    workload: str
    subject: str
    value: float
    details: dict[str, float]
    error: str = ""


@dataclass(frozen=True)
class Spread:
    """A median over the rounds, and how far they lie apart."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Ratio:
    """protojobs against one limit. More than 1 is better, also where less is: there it is the limit's value by ours."""

    store: str
    workload: str
    limit: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: Spread


def ratios(measured: Sequence[Measurement]) -> list[Ratio]:
    """One for each store, workload and limit of which both sides have a value; in the order of the workloads."""
    found: list[Ratio] = []
    keys = {(m.workload, m.store, m.subject): None for m in measured if m.subject != OURS}
    for workload, store, limit in sorted(keys, key=lambda key: list(WORKLOADS).index(key[0])):
        ours, theirs = (_values(measured, workload, store, name) for name in (OURS, limit))
        rounds = sorted(ours.keys() & theirs.keys())  # a round counts where both sides went well
        if not rounds:
            continue
        kind = WORKLOADS[workload]
        pairs = [(ours[r], theirs[r]) if kind.is_rate else (theirs[r], ours[r]) for r in rounds]
        each = [above / below for above, below in pairs]
        # The ratio of the medians lies between the least and the greatest of the rounds' own ratios.
        middle = statistics.median(above for above, _ in pairs) / statistics.median(below for _, below in pairs)
        both = (_spread([values[r] for r in rounds]) for values in (ours, theirs))
        found.append(
            Ratio(store, workload, limit, kind.unit, next(both), next(both), Spread(middle, min(each), max(each)))
        )
    return found


def faults(measured: Sequence[Measurement]) -> list[str]:
    """A line for each measurement that failed, or in which a job was lost or ran twice."""
    lines: list[str] = []
    for m in measured:
        head = f"round {m.round}: {m.workload} on {m.store}, {m.subject}"
        if m.error:
            lines.append(f"{head} FAILED: {brief(m.error)}")
        lines += [
            f"{head}: {m.details[what]:g} jobs {what.upper()}" for what in ("lost", "doubled") if m.details.get(what)
        ]
    return lines


def factor(ratio: float) -> str:
    """Two digits that say something, also of a small one."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def brief(error: str) -> str:
    """What happened, and the last line of what the process said."""
    lines = error.strip().splitlines()
    return ": ".join(dict.fromkeys((lines[0], lines[-1])))


def table(found: Sequence[Ratio]) -> str:
    """Aligned columns, a group of lines for each workload."""
    head = ("store", "against", "protojobs", "(min-max)", "limit", "(min-max)", "ratio", "(min-max)")
    rows: list[tuple[str, ...]] = []
    for one in found:
        spreads = (one.ours, one.theirs)
        cells = [text for spread in spreads for text in (_number(spread.median), _range(spread, _number))]
        rows.append((one.store, one.limit, *cells, factor(one.ratio.median), _range(one.ratio, factor)))
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines: list[str] = []
    last = ""
    for one, row in zip(found, rows, strict=True):
        if one.workload != last:
            last, kind = one.workload, WORKLOADS[one.workload]
            lines += ["", f"{kind.title}, {kind.unit}" + ("" if kind.is_rate else " (ratio: limit / protojobs)")]
            lines.append(_line(head, widths))
        lines.append(_line(row, widths))
    return "\n".join(lines).lstrip("\n")


def document(measured: Sequence[Measurement], found: Sequence[Ratio], **about: object) -> dict[str, object]:
    """Everything, for a file."""
    return {
        **about,
        "ratios": [asdict(one) for one in found],
        "faults": faults(measured),
        "measurements": [asdict(one) for one in measured],
    }


def _values(measured: Sequence[Measurement], workload: str, store: str, subject: str) -> dict[int, float]:
    wanted = (workload, store, subject)
    return {m.round: m.value for m in measured if (m.workload, m.store, m.subject) == wanted and not m.error}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _range(spread: Spread, show: Callable[[float], str]) -> str:
    return f"({show(spread.least)}-{show(spread.greatest)})"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths, strict=False)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join(("", *left, *right)).rstrip()
