"""``monai-transfer predict``: the bundle's own inference config on the user's files; unreadable ones are skipped.

The config's reader is replaced by ``SafeReader``, which reads sound files to the same voxels and refuses the others
with one line. All that the bundle writes goes to a folder aside first and from there, renamed, to where it belongs, so
an interrupted call leaves no half-written prediction.
"""

from __future__ import annotations

import csv
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from monai_transfer.bundle.inference import open_inference, own_code
from monai_transfer.bundle.run import best_weights
from monai_transfer.bundle_reader import BundleDescription
from monai_transfer.errors import InputError, first_cause, is_out_of_memory
from monai_transfer.files import make_folder, move_file, no_room, unwritable
from monai_transfer.library_logging import heard_from
from monai_transfer.manifest.label_mapping import LabelMapping
from monai_transfer.networks.arguments import OUTPUTS, argument_of
from monai_transfer.predict.dicom_seg import check_highdicom, write_dicom_seg
from monai_transfer.predict.flips import add_flips
from monai_transfer.predict.formats import FORMATS
from monai_transfer.predict.in_slabs import NotInSlabs, put_in_slabs
from monai_transfer.predict.inputs import Item, find_items
from monai_transfer.predict.items import Given, ReadableItems
from monai_transfer.predict.outputs import check_output
from monai_transfer.runs.lock import FolderLock, holder
from monai_transfer.stopping import at_stop, keeps
from monai_transfer.tables import write_table
from monai_transfer.tasks import TASKS
from monai_transfer.weights.hashes import verify_file

__all__ = ["FORMATS", "Predictions", "predict_images"]


@dataclass
class Predictions:
    """What ``predict_images`` did.

    Attributes:
        written: the files, in the order of the inputs.
        faults: of the images that could not be predicted on; each names its file.
        n_images: how many images there were.
        notes: what was left out.
    """

    written: list[Path] = field(default_factory=list)
    faults: list[InputError] = field(default_factory=list)
    n_images: int = 0
    notes: list[str] = field(default_factory=list)


def predict_images(
    bundle: str | Path,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    run: str | Path | None = None,
    format: str = "nifti",
    series: str | None = None,
    split: str | None = None,
    tta: str | None = None,
    progress: bool = False,
    trust_source: bool = False,
    max_memory: int | None = None,
    bf16: bool = False,
) -> Predictions:
    """Predict on files, folders, DICOM series and the cases of manifests; a broken one does not stop the others.

    Segmentations become ``<name>_pred`` files in each image's own grid, below ``output`` in the folders of the inputs
    (so that equal names never collide; cases of a manifest by their names), localizations ``<name>_boxes.json`` in
    voxels and mm likewise; classifications and regressions one row per image in ``predictions.csv``. Pictures are
    predicted as training reads them: upright (EXIF), palettes as the colours they stand for.

    Args:
        bundle: its inference config is read; none of its code runs.
        inputs: see ``find_items``.
        output: folder for the predictions.
        run: the run whose best weights to use instead of the bundle's.
        format: ``nifti`` (masks of pictures are PNG), or ``dicom-seg`` for DICOM input.
        series, split: see ``find_items``.
        tta: ``"flips"``: the mean over mirror images, in the axes that training mirrored.
        progress: tell on stderr how far it is.
        trust_source: run the bundle's own configs and code, and remember the decision.
        max_memory: bytes that the classes of one image may take beside the network; by default most of what is free.
        bf16: run the network in bfloat16: sooner on many processors, with rounding that moves few voxels.

    Raises:
        InputError: the bundle has no inference config or weights, or no input can be found; or the only image cannot
            be predicted on.
    """
    output = Path(output).resolve()
    if output.is_file():
        raise InputError("is a file", path=output, hint="name a folder for the predictions")
    if format not in FORMATS:
        raise InputError(f"no format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    weights = best_weights(bundle, run)
    verify_file(weights)
    flow = open_inference(bundle, trust_source=trust_source)
    takes = _input_spec(flow.described)
    if tta is not None:
        add_flips(flow, bundle, tta, list(takes.names.values()), takes.dims or 3, untouched=run is None)
    notes: list[str] = []
    items = find_items(
        inputs,
        channels=takes.channels or 1,
        names=takes.channel_names,
        leave_out=output,
        series=series,
        split=split,
        may_lack=takes.may_lack,
        notes=notes,
    )
    if format == "dicom-seg":
        check_highdicom()
        if takes.tabular or takes.kind == "boxes":
            hint = "leave --format out: boxes and values come as JSON and CSV"
            raise InputError("predicts no masks, so there is no DICOM SEG of them", path=bundle, hint=hint)
        for item in items:
            if not item.dicom and item.fault is None:
                hint = "leave --format out for it"
                item.fault = InputError(
                    "is no DICOM image, so no DICOM SEG can refer to it", path=item.shown, hint=hint
                )
    with _aside(output) as aside, own_code(flow):
        for limit in (True, False):
            flow = flow if limit else open_inference(bundle, trust_source=trust_source)
            try:
                work = _Work(flow, items, takes, weights, aside, output, format, Path(bundle), progress)
                done = _run(work, in_slabs=limit, max_memory=max_memory, bf16=bf16)
                done.notes = notes
                return done
            except NotInSlabs:
                continue  # once more, the bundle's own way
    raise AssertionError


@contextmanager
def _aside(output: Path) -> Iterator[Path]:
    """A folder in the output's for what is not whole yet; those of dead processes are cleared."""
    make_folder(output)
    for old in output.glob(f"{_ASIDE}*"):
        if old.is_dir() and holder(old) is None:
            shutil.rmtree(old, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(dir=output, prefix=_ASIDE))
    except OSError as error:
        raise unwritable(output, error) from error
    with at_stop(lambda: shutil.rmtree(folder, ignore_errors=True)):
        try:
            with FolderLock(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_ASIDE = ".predicting-"


@dataclass
class _Work:
    flow: Any
    items: list[Item]
    takes: _InputSpec
    weights: Path
    aside: Path
    output: Path
    format: str
    bundle: Path
    progress: bool


@dataclass
class _InputSpec:
    """What the metadata say of the network: channels and dimensions of the image, kind and names of the output, and
    whether just one of the classes is there."""

    channels: int | None = None
    dims: int | None = None
    kind: str = ""
    names: dict[int, str] = field(default_factory=dict)
    channel_names: list[str] = field(default_factory=list)
    exclusive: bool = True
    segments: dict[str, tuple[int, ...]] | None = None
    may_lack: bool = False

    @property
    def tabular(self) -> bool:
        """Whether the predictions are rows of a table."""
        return self.kind in ("probabilities", "array", "classes", "value")


def _input_spec(found: BundleDescription) -> _InputSpec:
    task = TASKS.get(str(found.task))
    kind = "boxes" if task is not None and task.saved_as == "boxes" else found.output_type or ""
    names = dict(enumerate(found.labels or []))
    exclusive = task is None or task.activation != "sigmoid"
    told = found.metadata.get("transfer") or {}
    segments = None
    if isinstance(told.get("label_mapping"), dict):
        try:
            segments = LabelMapping.from_dict(told["label_mapping"]).written_segments
        except InputError as error:
            path = found.folder / "configs" / "metadata.json"
            raise InputError(error.fault, path=path, hint=error.hint) from error
    return _InputSpec(
        found.in_channels,
        found.dims,
        kind,
        names=names,
        channel_names=found.channels or [],
        exclusive=exclusive,
        segments=segments or None,
        may_lack=told.get("channels_may_be_missing") is True,
    )


def _classes(config: dict[str, Any], names: dict[int, str]) -> int | None:
    """How many scores a voxel gets: as the network is made, else as many as there are names."""
    network = config.get("network_def")
    name = argument_of(OUTPUTS, network) if isinstance(network, dict) else None
    value = network[name] if isinstance(network, dict) and name is not None else None
    return value if isinstance(value, int) else len(names) or None


def _run(work: _Work, *, in_slabs: bool, max_memory: int | None, bf16: bool) -> Predictions:
    flow, items, output = work.flow, work.items, work.output
    staged, links = work.aside / "out", work.aside / "links"
    for folder in (staged, links):
        shutil.rmtree(folder, ignore_errors=True)
    make_folder(staged)
    root = _prepare_config(flow, items, work.takes, work.weights, staged, links)
    slabs = in_slabs and put_in_slabs(flow.parser, _classes(flow.parser.config, work.takes.names), max_memory, bf16)
    if not slabs and max_memory is not None and not work.takes.tabular:
        hint = "leave it out; only windows, a linear inverse and the class of the greatest score can be done in parts"
        raise InputError("--max-memory does not go with this bundle's inference", path=work.bundle, hint=hint)
    faults = {n: item.fault for n, item in enumerate(items) if item.fault is not None}
    written: dict[int, list[Path]] = {}
    shown = work.progress and sys.stderr.isatty()
    bar = tqdm(total=len(items), desc="predicting", disable=not shown, leave=False)
    keeps(lambda: f"{len(written)} of {len(items)} images are predicted and kept; the same command predicts all again")

    def done(n: int) -> None:
        bar.update()
        if work.progress and not shown and (n + 1) % max(1, len(items) // 10) == 0:
            print(f"predicting: {n + 1} of {len(items)}", file=sys.stderr)
        try:
            written[n] = _settle(items[n], staged, output, work.format, work.takes, work.bundle)
        except InputError as error:
            full = no_room(staged / "probe")
            faults[n] = error if full is None else unwritable(output / f"{items[n].name}_pred", full)
            _clear(staged)

    # ignite's errors are told by us, in one line; MONAI's writer names files in the folder aside
    with heard_from({"ignite": logging.CRITICAL, "monai.data.image_writer": logging.WARNING}):
        _go_through(flow, items, faults, done, written, staged, output)
    flow.finalize()
    bar.close()
    result = Predictions([path for n in sorted(written) for path in written[n]], n_images=len(items))
    for table in sorted(staged.rglob("*.csv")):
        result.written.append(_write_rows(table, output / table.name, items, root, work.takes))
    result.faults = [_named(faults[n], items[n], links) for n in sorted(faults)]
    if result.faults and len(items) == 1:
        raise result.faults[0]
    if not result.written and not result.faults:
        hint = "look at its postprocessing"
        raise InputError("the bundle's inference config wrote nothing", path=work.bundle, hint=hint)
    return result


# ---------------------------------------------------------------------- the bundle's config
def _prepare_config(flow: Any, items: list[Item], takes: _InputSpec, weights: Path, staged: Path, links: Path) -> str:
    """Put the items, our data set and our reader into the config; returns the root of the outputs' names."""
    config = flow.parser.config
    dataset = config.get("dataset")
    if not isinstance(dataset, dict) or "transform" not in dataset:
        raise InputError(
            "its inference config has no dataset with a transform",
            path=config.get("bundle_root"),
            hint="name a bundle whose inference config reads images",
        )
    data = []
    for n, item in enumerate(items):
        image = _link(item, links / str(n)) if item.linked else item.image
        # MONAI writes tables unquoted: a comma in a name would shift the columns, so such an image goes by its number
        name = _numbered(n) if takes.tabular and set(item.name) & set(',"\r\n') else item.name
        data.append({"image": image, "name": name, "shown": item.shown, "missing": item.missing})
    root = str(links / "names")  # nothing lies there: MONAI's savers take the names below it
    for key, value in (("dataset_dir", root), ("output_dir", str(staged)), ("ckpt", str(weights.resolve()))):
        if key in config:
            flow.parser[key] = value
    if "ckpt" not in config and weights.parent.parent.resolve() != Path(flow.parser.config["bundle_root"]).resolve():
        raise InputError(
            "its inference config has no id ckpt, so other weights cannot be named",
            path=weights,
            hint="leave --run out, or add an id `ckpt` that the network's weights are loaded from",
        )
    for key in ("batch_size", "num_workers"):
        if key in (config.get("dataloader") or {}):
            flow.parser[f"dataloader#{key}"] = 1 if key == "batch_size" else 0
    _guard_readers(config, dataset["transform"], takes.channels)
    flow.parser["dataset"] = {
        "_target_": f"{ReadableItems.__module__}.{ReadableItems.__name__}",
        "data": Given(data),
        "transform": dataset["transform"],
        "root": root,
        "channels": takes.channels,
        "dims": takes.dims,
    }
    return root


def _numbered(n: int) -> str:
    return f"~{n:08d}~"


def _link(item: Item, folder: Path) -> str:
    """One series of a folder that holds several, as a folder of its own."""
    folder.mkdir(parents=True)
    for n, path in enumerate(item.dicom):
        (folder / f"{n:05d}.dcm").symlink_to(path.resolve())
    return str(folder)


def _guard_readers(config: dict[str, Any], transform: Any, channels: int | None) -> None:
    """``SafeReader`` in place of MONAI's in the transforms that load the image; a reader not known here is left."""
    while isinstance(transform, str) and transform.startswith("@"):
        transform = config.get(transform[1:])
    steps = transform.get("transforms", []) if isinstance(transform, dict) else []
    for step in steps if isinstance(steps, list) else []:
        name = str(step.get("_target_", "")) if isinstance(step, dict) else ""
        if name.rsplit(".", 1)[-1] not in ("LoadImaged", "LoadImageD", "LoadImageDict"):
            continue
        given = step.get("reader")
        target = given.get("_target_", "") if isinstance(given, dict) else given or ""
        converter = str(given.get("converter", "")) if isinstance(given, dict) else ""
        turned = re.search(r"convert\(['\"](L|RGB)['\"]\)", converter)
        if not re.fullmatch(r"(monai\.data\.(image_reader\.)?)?(|(ITK|Nibabel|PIL|Pydicom|Nrrd)Reader)", str(target)):
            continue
        if converter and not turned:
            continue
        mode = {"L": "grey", "RGB": "rgb"}[turned[1]] if turned else ("rgb" if channels == 3 else None)
        step["reader"] = {"_target_": "monai_transfer.data.readers.SafeReader", "mode": mode}


def _go_through(
    flow: Any,
    items: list[Item],
    faults: dict[int, InputError],
    done: Callable[[int], None],
    written: dict[int, list[Path]],
    staged: Path,
    output: Path,
) -> None:
    """Run; where the network fails on an image, note it and go on with the others."""
    finished: set[int] = set()
    while True:
        flow.initialize()  # everything anew: an engine that failed does not run again
        dataset: ReadableItems = flow.parser.get_parsed_content("dataset")
        dataset.faults, dataset.finished, dataset.done = faults, finished, done
        try:
            flow.run()
            return
        except Exception as error:
            n = dataset.current
            if n is None and len(faults) + len(finished) == len(items):
                return  # nothing was left to predict on, and some handlers cannot cope with that
            if n is None or n in finished:
                if (full := no_room(staged / "probe")) is not None:  # a table, which is written at the end
                    raise unwritable(output / "predictions.csv", full) from error
                raise
            cause = first_cause(error)
            if (other_way := _not_in_slabs(error)) is not None:
                raise other_way from None
            if isinstance(cause, InputError):
                faults[n] = cause if cause.path is not None else InputError(
                    cause.fault, path=items[n].shown, hint=cause.hint
                )  # fmt: skip
            elif (full := no_room(staged / "probe")) is not None:
                faults[n] = unwritable(output / f"{items[n].name}_pred", full)
            elif is_out_of_memory(error):
                hint = "set --max-memory, close other programs, or use a bundle of coarser spacing"
                faults[n] = InputError("memory ran out on it", path=items[n].shown, hint=hint)
            else:
                text = (str(cause).strip().splitlines() or [""])[0][:200]
                fault = f"the network failed on it ({type(cause).__name__}: {text})"
                faults[n] = InputError(
                    fault, path=items[n].shown, hint="see whether it is such an image as the model was made for"
                )
            _clear(staged)
            if not any(written.values()):
                finished.clear()  # a table is written at the end of a whole run alone


def _not_in_slabs(error: BaseException | None) -> NotInSlabs | None:
    while error is not None and not isinstance(error, NotInSlabs):
        error = error.__cause__ or error.__context__
    return error


def _named(fault: InputError, item: Item, links: Path) -> InputError:
    """The fault with the user's own file in it: a series among others was read through links."""
    if fault.path is None:
        return InputError(fault.fault, path=item.shown, hint=fault.hint)
    if item.linked and Path(fault.path).is_relative_to(links):
        place = Path(fault.path)
        number = int(place.stem) if place.suffix == ".dcm" else None
        return InputError(fault.fault, path=item.shown if number is None else item.dicom[number], hint=fault.hint)
    return fault


# ---------------------------------------------------------------------- what it wrote
def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _clear(folder: Path) -> None:
    for path in _files(folder):
        path.unlink()


def _settle(item: Item, staged: Path, output: Path, format: str, takes: _InputSpec, bundle: Path) -> list[Path]:
    """Bring what was written for one item to its place; as DICOM SEG if asked."""
    target = output / Path(item.name).parent
    settled = []
    for path in _files(staged):
        if path.suffix == ".csv":
            continue
        if format == "dicom-seg" and not path.name.endswith((".nii", ".nii.gz")):
            fault = f"the bundle writes {path.suffix} files, and only masks become DICOM SEG"
            raise InputError(fault, path=bundle, hint="leave --format out")
        if format == "dicom-seg":
            place = target / f"{path.name.removesuffix('.gz').removesuffix('.nii')}.dcm"
            model = bundle.resolve().name
            settled.append(write_dicom_seg(path, item.dicom, place, takes.names, model=model, segments=takes.segments))
            path.unlink()
        else:
            settled.append(move_file(path, target / path.name, check=check_output))
    return settled


def _write_rows(table: Path, target: Path, items: Sequence[Item], root: str, takes: _InputSpec) -> Path:
    """MONAI's CSV with a header, the classes by name, the images as the user calls them, and where each lies."""
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    width = min((len(row) for row in rows), default=1) - 1
    names = [takes.names[key] for key in sorted(takes.names)]
    if len(names) != width:
        names = [f"output {i}" for i in range(width)]
    # without classes they are features, and none of them is the prediction
    classes = (
        not takes.exclusive or width > 1 and (takes.kind in ("probabilities", "classes") or len(takes.names) == width)
    )
    by_name = {f"{name}.nii.gz": item for n, item in enumerate(items) for name in (item.name, _numbered(n))}
    made = []
    for row in rows:
        image, values = ",".join(row[: len(row) - width]), row[len(row) - width :]
        name = Path(image).relative_to(root).as_posix() if image.startswith(root) else image
        item = by_name.get(name)
        line = {"image": (item.row or item.name) if item is not None else name}
        line |= dict(zip([f"p_{one}" for one in names] if classes else names, values, strict=True))
        if classes:
            line["prediction"] = _said(names, [float(v) for v in values], takes.exclusive)
        line["path"] = "; ".join(str(Path(path).absolute()) for path in item.images) if item is not None else ""
        made.append(line)
    write_table(target, made)
    check_output(target)
    return target


def _said(names: list[str], p: list[float], exclusive: bool) -> str:
    """The most probable class; or, where several may be there, all findings above one half."""
    if exclusive:
        return names[max(range(len(p)), key=p.__getitem__)]
    return "|".join(name for name, value in zip(names, p, strict=True) if value > 0.5) or "no finding"
