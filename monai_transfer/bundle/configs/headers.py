"""The head of each config: what it does, the command to run it, the data it wants, the score to expect."""

from __future__ import annotations

from monai_transfer.bundle.spec import BundleSpec

__all__ = ["header"]

_WHAT = {
    "train": "fine-tune on the labelled cases of the target site (the bundle's main purpose).",
    "pretrain": 'pretrain on the labelled cases of the source site, from fresh weights; tests there ("home").',
    "adapt": "adapt to the target site without its labels (labelled source cases, unlabelled target cases).",
    "evaluate": "evaluate weights on the target site's test cases, in each image's own grid; trains nothing.",
    "scratch": "train without the source: network and preprocessing planned for the target's labelled cases alone.",
    "multi_gpu_train": "the same on several processes or GPUs; stands on train.yaml (or train + adapt / pretrain).",
    "inference": "predict on new images; needs MONAI alone.",
}
_WHAT_ALONE = {
    "train": "self-supervised pretraining by masked autoencoding, on all training and unlabelled scans of both sites.",
    "contrastive": "self-supervised pretraining by contrast (SimCLR) instead of masking: two views of each scan, all "
    "others are negatives.",
    "multi_gpu_train": "the same on several processes or GPUs; stands on top of train.yaml (or train + contrastive).",
    "inference": "describe new images by the encoder's features (one row of numbers per image); needs MONAI alone.",
}
_MORE = {
    "train": "From scratch instead: --pretrained none.  Without target labels: configs/adapt.yaml on top.",
    "pretrain": "Its models/model.pt is what the bundle's models/model.pt was copied from.",
    "adapt": "A few labelled target cases join in with --n_labelled 3. No target label decides anything: "
    "the last epoch is kept, or see choose_by.",
    "scratch": "With the source's network and preprocessing instead: configs/train.yaml with --pretrained none.",
    "evaluate": "Other weights: --ckpt FILE.  Another site: --target_site NAME.",
}
_MORE_ALONE = {
    "train": "Its models/model.pt is what another bundle starts from: --pretrained FILE.  Contrastive instead: "
    "configs/contrastive.yaml on top.",
    "contrastive": "Only the encoder, up to `layer`, learns; its models/model.pt holds nothing else. The last epoch is "
    "kept.",
    "inference": "network_def is the whole network, which fills in hidden blocks; weights of contrastive.yaml are the "
    "encoder alone:\nwith them add --handlers#0#strict False.",
}
_WRITES = {
    "mask": "NIfTI masks in each image's own grid",
    "boxes": "the lesions' boxes as JSON, one file per image",
    "table": "one CSV row per image",
    "features": "one CSV row per image",
}


def _run(name: str) -> list[str]:
    two = "['configs/train.yaml','configs/multi_gpu_train.yaml']"
    torchrun = f'torchrun --nproc_per_node=2 -m monai.bundle run --config_file "{two}"'
    if name == "train":
        return [
            "run:    python -m monai.bundle run --config_file configs/train.yaml        (in the bundle's folder)",
            f"        with two processes: {torchrun}",
        ]
    if name == "multi_gpu_train":
        return [f"run:    {torchrun}"]
    files = f"['configs/train.yaml','configs/{name}.yaml']"
    return [f'run:    python -m monai.bundle run --config_file "{files}"']


def _inference(s: BundleSpec) -> list[str]:
    modality = f" ({s.modality})" if s.modality else ""
    what = "masks" if s.picture and s.kind.saved_as == "mask" else _WRITES[s.kind.saved_as]
    options = f'--dataset_dir DIR --pattern "**/*{s.suffix}"'
    return [
        f"run:    python -m monai.bundle run --config_file configs/inference.yaml {options}",
        f"wants:  images{modality} like those in sample/; writes to output_dir, {what}",
        f"expect: {s.expect['inference']}",
    ]


def header(s: BundleSpec, name: str) -> list[str]:
    """The comment lines that the config ``name`` opens with."""
    alone = not s.kind.judged
    first = f"{s.name}: {(_WHAT_ALONE if alone else _WHAT)[name]}"
    more = (_MORE_ALONE if alone else _MORE).get(name)
    if name == "inference":
        lines = _inference(s)
    else:
        expected = (
            "as with one process; gloo on CPU, nccl on CUDA. Each process draws its own batches, so the batch is N "
            "times larger."
            if name == "multi_gpu_train"
            else s.expect[name]
        )
        unseen = "; no label is read, no test case is seen" if alone and name != "multi_gpu_train" else ""
        lines = [*_run(name), f"wants:  {s.data_note}{unseen}", f"expect: {expected}"]
    return [first, *lines, *([more] if more else [])]
