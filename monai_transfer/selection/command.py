"""The commands ``monai-transfer gap`` and ``monai-transfer rank``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_transfer.errors import InputError
from monai_transfer.options import TrustSource, announce, require

if TYPE_CHECKING:
    from monai_transfer.selection.gap import DomainGap

__all__ = ["gap", "rank"]


def gap(
    manifest_a: Annotated[Path, typer.Argument(help="Manifest of the first domain.")],
    manifest_b: Annotated[
        Path | None,
        typer.Argument(help="Manifest of the second; may be the same file, with sites.", show_default=False),
    ] = None,
    site_a: Annotated[str | None, typer.Option(help="Take only this site of A.")] = None,
    site_b: Annotated[str | None, typer.Option(help="Take only this site of B.")] = None,
    source: Annotated[Path | None, typer.Option(help="A bundle whose features give a second learned distance.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Picture to write: .html or .png.")] = None,
    patients: Annotated[int, typer.Option(help="Look at no more patients of each set than this.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_source: TrustSource = False,
    over_time: Annotated[
        bool, typer.Option("--over-time", help="One manifest: its earlier against its later patients (`acquired`).")
    ] = False,
    against_rest: Annotated[
        bool, typer.Option("--against-rest", help="One manifest: each site (or --site-a) against all others together.")
    ] = False,
    fail_on_drift: Annotated[bool, typer.Option(help="Exit with 1 when a drift over time raises the alarm.")] = False,
) -> None:
    """How far two domains are apart, in numbers and a picture."""
    require(manifest_a, manifest_b, source)
    if over_time and (manifest_b is not None or site_b is not None):
        raise InputError("--over-time looks at one set", hint="name one manifest, and a site of it with --site-a")
    if against_rest and (manifest_b is not None or site_b is not None or over_time):
        raise InputError("--against-rest looks at one manifest", hint="name one, and a site of it with --site-a")
    if against_rest and out is not None and site_a is None:
        raise InputError("--out draws one gap, and --against-rest measures several", hint="choose one with --site-a")
    if not over_time and not against_rest and manifest_b is None:
        if site_a is None or site_b is None:
            hint = "name a second manifest, two sites of this one (--site-a, --site-b), --against-rest or --over-time"
            raise InputError("a gap has two sides", path=manifest_a, hint=hint)
        manifest_b = manifest_a
    announce(f"gap: reading the images of {manifest_a}" + (f" and {manifest_b}" if manifest_b else ""), quiet=as_json)
    from monai_transfer.selection.gap import domain_gap, gap_over_time, gap_to_the_rest

    settings: dict[str, Any] = {
        "source": source,
        "trust_source": trust_source,
        "max_patients": patients,
        "seed": seed,
        "progress": sys.stderr.isatty(),
    }
    gaps: dict[str, DomainGap]
    if against_rest:
        gaps = gap_to_the_rest(manifest_a, site=site_a, **settings)
    elif manifest_b is None:
        gaps = {"": gap_over_time(manifest_a, site=site_a, **settings)}
    else:
        gaps = {"": domain_gap(manifest_a, manifest_b, site_a=site_a, site_b=site_b, **settings)}
    if out is not None:
        from monai_transfer.selection.gap_picture import save_gap_picture

        save_gap_picture(next(iter(gaps.values())), out)
    if as_json:
        plain = {site: _json_ready(found.to_dict()) for site, found in gaps.items()}
        typer.echo(json.dumps({"sites": plain} if against_rest else plain[""], indent=2))
    else:
        for found in gaps.values():
            _say(found)
        if against_rest:
            shares = {site: sum(row.differs for row in found.rows) for site, found in gaps.items()}
            odd = sorted(shares, key=lambda site: -shares[site])
            typer.echo("measures that differ from the rest: " + ", ".join(f"{site} {shares[site]}" for site in odd))
        if out is not None:
            typer.echo(f"picture: {out}")
    if fail_on_drift and any(drift.alarm for found in gaps.values() for drift in found.drifts):
        raise typer.Exit(1)


def _say(found: DomainGap) -> None:
    typer.echo(f"{found.name_a} ({found.patients_a} patients) and {found.name_b} ({found.patients_b} patients)")
    for row in found.rows:
        typer.echo(f"{'*' if row.differs else ' '} {row.sentence}")
    for drift in found.drifts:
        typer.echo(f"{'*' if drift.alarm else ' '} {drift.sentence}")
    for note in [*found.notes, "*: the 95 % interval excludes 0, or an alarm"]:
        typer.echo(f"note: {note}")


def rank(
    manifest: Annotated[Path, typer.Argument(help="Manifest of the target.")],
    more: Annotated[list[Path] | None, typer.Argument(help="Further sources.", show_default=False)] = None,
    sources: Annotated[list[Path] | None, typer.Option("--sources", help="Bundle folders: --sources A B ...")] = None,
    site: Annotated[str | None, typer.Option(help="Take only this site of the target.")] = None,
    n_labelled: Annotated[int | None, typer.Option(help="Use only so many labelled cases.")] = None,
    permutations: Annotated[int, typer.Option(help="Permutations of each null.")] = 200,
    cases: Annotated[int, typer.Option(help="Look at no more cases than this.")] = 100,
    measure_gap: Annotated[bool, typer.Option("--gap/--no-gap", help="Measure the gap to each source's data.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
    trust_source: TrustSource = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank source models for this target, each score beside its permutation null."""
    # an option takes one value: in `rank M --sources A B` the shell's B arrives as an argument
    given = [*(sources or []), *(more or [])]
    if manifest.is_dir() and any(path.is_file() for path in given):
        target = next(path for path in given if path.is_file())
        given = [manifest, *(path for path in given if path != target)]
        manifest = target
    if not given:
        raise InputError("no source to rank", hint="name bundle folders: --sources A B ...")
    require(manifest, *given)
    announce(f"rank: {len(given)} sources for {manifest}", quiet=as_json)
    from monai_transfer.selection.rank import rank_sources

    ranking = rank_sources(
        manifest,
        given,
        site=site,
        n_labelled=n_labelled,
        permutations=permutations,
        max_cases=cases,
        gap=measure_gap,
        trust_source=trust_source,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    if all(row.fault is not None for row in ranking.rows):
        raise InputError(
            f"no source can be used here: {'; '.join(str(row.fault) for row in ranking.rows)}",
            hint="see `monai-transfer check MANIFEST --source BUNDLE` for one of them",
        )
    typer.echo(json.dumps(_json_ready(ranking.to_dict()), indent=2) if as_json else str(ranking))


def _json_ready(value: object) -> object:
    """JSON has no NaN: it becomes null. Keys become text."""
    if isinstance(value, dict):
        return {str(key): _json_ready(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(one) for one in value]
    if isinstance(value, float) and value != value:
        return None
    return value
