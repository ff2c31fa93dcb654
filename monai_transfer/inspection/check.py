"""``check_manifest``: read every file of a manifest and say everything that is wrong, at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from monai_transfer.data.readers import memory_limit
from monai_transfer.inspection.facts import CaseJob, Inspected
from monai_transfer.inspection.finding import Finding, sort_findings
from monai_transfer.inspection.fixes import fix_label, fix_picture, fix_volume
from monai_transfer.inspection.pool import inspect_cases
from monai_transfer.inspection.sets import check_set
from monai_transfer.inspection.values import declared_values
from monai_transfer.manifest.checks import SPLITS
from monai_transfer.manifest.checksums import sha256_image
from monai_transfer.manifest.model import Case, Manifest
from monai_transfer.manifest.paths import absolute
from monai_transfer.tasks import get_task

__all__ = ["check_manifest", "fix_manifest", "inspect_manifest", "look"]


def check_manifest(
    manifest: Manifest,
    *,
    root: str | Path | None = None,
    jobs: int = 2,
    max_memory: int | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Read every image and label of ``manifest`` to the end and report all faults at once.

    Args:
        manifest: the cases.
        root: another folder to find the files in: their paths below the manifest's own folder are kept.
        jobs: number of processes; so many cases are in memory at once.
        max_memory: bytes (or ``"2GiB"``) that reading one image may take.
        progress: called with (cases done, cases in all).

    Returns:
        Findings, errors first; empty where nothing is wrong. Files are never changed.

    Raises:
        InputError: ``max_memory`` is no amount of memory.

    Of two pictures one was cut off while it was copied:

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.radial_gradient("L").save(folder / "a.png")
    >>> _ = (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:-20])
    >>> items = [{"image": f"{c}.png", "label": n, "case": c, "patient": c, "site": "x"} for n, c in enumerate("ab")]
    >>> head = {"name": "set", "task": "classification", "labels": {"0": "benign", "1": "malignant"}}
    >>> manifest = Manifest.from_dict(head | {"training": items}, folder)
    >>> [(finding.case, finding.fault) for finding in check_manifest(manifest, jobs=1) if finding.severity == "error"]
    [('b', 'cut off (the PNG end mark is missing)')]
    """
    inspected = inspect_manifest(manifest, root=root, jobs=jobs, max_memory=max_memory, progress=progress)
    return findings_of(manifest, inspected)


def inspect_manifest(
    manifest: Manifest,
    *,
    root: str | Path | None = None,
    jobs: int = 2,
    max_memory: int | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspected:
    """The facts and faults of every case, without the set's own; see ``check_manifest`` for the arguments."""
    limit = memory_limit(max_memory)
    cases = [(split, _moved(case, manifest, root)) for split in SPLITS for case in manifest.cases(split)]
    classes = declared_values(manifest) if get_task(manifest.task).needs_names else {}
    results = inspect_cases([_job(manifest, case, limit, classes) for _, case in cases], jobs, progress)
    return [(split, case, result) for (split, case), result in zip(cases, results, strict=True)]


look = inspect_manifest
"""The earlier name of ``inspect_manifest``."""


def findings_of(manifest: Manifest, inspected: Inspected) -> list[Finding]:
    """All findings of the inspected cases and of the set, sorted."""
    findings = [
        replace(finding, case=case.case, split=split)
        for split, case, result in inspected
        for finding in result.findings
    ]
    return sort_findings(findings + check_set(manifest, inspected))


def _job(manifest: Manifest, case: Case, limit: int, classes: dict[int, str]) -> CaseJob:
    kind = get_task(manifest.task)
    hashes: list[str | None] = [*case.sha256] if isinstance(case.sha256, list) else [case.sha256]
    hashes = hashes if len(hashes) == len(case.images) else [None] * len(case.images)
    there = [n for n in range(len(case.images)) if n not in case.missing]  # not the stand-ins
    return CaseJob(
        images=[case.images[n] for n in there],
        sha256=[hashes[n] for n in there],
        label=case.label if kind.label.is_path and isinstance(case.label, str) else None,
        sha256_label=case.sha256_label,
        classes=classes,
        max_memory=limit,
    )


def _moved(case: Case, manifest: Manifest, root: str | Path | None) -> Case:
    if root is None:
        return case
    base = Path(absolute(manifest.root or "", manifest.folder))

    def move(path: str) -> str:
        return str(Path(root) / Path(path).relative_to(base)) if Path(path).is_relative_to(base) else path

    image = move(case.image) if isinstance(case.image, str) else [move(path) for path in case.image]
    moved = replace(case, image=image)
    if isinstance(case.label, str) and get_task(manifest.task).label.is_path:
        moved = replace(moved, label=move(case.label))
    return moved


def fix_manifest(manifest: Manifest, inspected: Inspected, folder: str | Path) -> tuple[Manifest, list[str]]:
    """Write corrected copies of what can be fixed safely into ``folder``, and a manifest that names them.

    Sound files stay where they are and are named there. Nothing is changed in place.

    Args:
        manifest: the cases.
        inspected: of ``inspect_manifest``.
        folder: where copies and the new manifest go.

    Returns:
        The new manifest (saved as ``folder/manifest.json``), and a line for each file written.

    Nothing is wrong with this picture, so no copy is written:

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.radial_gradient("L").save(folder / "a.png")
    >>> item = {"image": "a.png", "label": 3.5, "case": "a", "patient": "a", "site": "x"}
    >>> manifest = Manifest.from_dict({"name": "set", "task": "regression", "training": [item]}, folder)
    >>> fixed, written = fix_manifest(manifest, inspect_manifest(manifest, jobs=1), folder / "fixed")
    >>> written, fixed.training[0].image == str(folder / "a.png")
    ([], True)
    """
    folder = Path(folder)
    written: list[str] = []
    fixed: dict[str, list[Case]] = {split: [] for split in SPLITS}
    for split, case, result in inspected:
        by_file: dict[str, list[str]] = {}
        changed = {finding.file for finding in result.findings if finding.code == "sha256"}
        for finding in result.findings:
            if finding.fixable and finding.file and finding.file not in changed:  # content that somebody vouches for
                by_file.setdefault(finding.file, []).append(finding.code)
        images = list(case.images)
        hashes = list(case.sha256) if isinstance(case.sha256, list) else [case.sha256] * len(images)
        for n, path in enumerate(images):
            codes = by_file.get(path)
            if codes:
                target = folder / "images" / (case.case if len(images) == 1 else f"{case.case}_{n}")
                whole = {"unreadable", "qform-sform"} & set(codes)
                new = fix_volume(path, target) if whole else fix_picture(path, target)
                written.append(f"{path} -> {new}")
                images[n], hashes[n] = str(new), sha256_image(new)
        new_case = replace(
            case,
            image=images[0] if isinstance(case.image, str) else images,
            sha256=hashes[0] if isinstance(case.image, str) else (hashes if all(hashes) else None),  # type: ignore[arg-type]
        )
        codes = by_file.get(case.label, []) if isinstance(case.label, str) else []
        if codes and isinstance(case.label, str):
            target = folder / "labels" / case.case
            header = set(codes) <= {"unreadable", "qform-sform"}
            new = fix_volume(case.label, target) if header else fix_label(case.label, target, codes)
            written.append(f"{case.label} -> {new}")
            new_case = replace(new_case, label=str(new), sha256_label=sha256_image(new))
        fixed[split].append(new_case)
    result_manifest = replace(manifest, **fixed, root=None)  # type: ignore[arg-type]
    return Manifest.load(result_manifest.save(folder / "manifest.json")), written
