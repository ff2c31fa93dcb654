"""Which of a bundle's ``data_statistics`` are those of one of its runs: the bundle may be fitted to several sites.

The first block describes what the bundle's weights saw: the site where its own training begins, or, where it started
from a source, that source's data, whose site may have the same name as one of ours. ``other_sites`` are its own data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["run_statistics"]


def run_statistics(transfer: Mapping[str, Any], trained_at: str | Sequence[str] | None) -> dict[str, Any] | None:
    """The statistics of the sites that a run was trained at, the first one's first, and all others in ``other_sites``.

    Args:
        transfer: the section ``transfer`` of the bundle's metadata.
        trained_at: the run's site or sites; ``None``: all of its data.

    Returns:
        Keys as in ``DataDescription``, and ``site``; ``None`` where the metadata say nothing of one of the sites.
    """
    statistics = dict(transfer.get("data_statistics") or {})
    others = dict(statistics.pop("other_sites", None) or {})
    known = dict(others)
    of_source = bool(transfer.get("weights"))
    if statistics and not of_source:
        known[statistics.get("site")] = statistics
    sites = list(trained_at) if isinstance(trained_at, Sequence) and not isinstance(trained_at, str) else [trained_at]
    if not sites or any(site not in known for site in sites):
        return None
    if statistics and of_source:  # a namesake among ours stands over it
        known.setdefault(statistics.get("site") or "source", statistics)
    first = known.pop(sites[0])
    rest = {
        str(site): {key: value for key, value in known[site].items() if key != "site"}
        for site in [*sites[1:], *(site for site in known if site not in sites)]
    }
    named = {} if sites[0] is None else {"site": sites[0]}
    return first | named | ({"other_sites": rest} if rest else {})
