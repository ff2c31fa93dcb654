"""What the ways of training are called, and what they are in a clause: one place for reports, plans and reasons."""

from __future__ import annotations

__all__ = ["ARM_ORDER", "arm_name", "arm_note"]

_ARMS = {
    "scratch": ("from scratch", "trained on the labelled target cases only, starting from random weights"),
    "scratch_same": (
        "the source's network from scratch",
        "trained on the labelled target cases only, with the source's network and preprocessing, from random weights",
    ),
    "source": ("untouched source", "the source model as it is, never trained on this target"),
    "fine_tuned": ("fine-tuned", "starts from the source model, trained further on the labelled target cases"),
    "adapted": ("adapted", "starts from the source model, adapted with target scans that have no labels"),
    "head_only": (
        "head only",
        "starts from the source model, only its last layer trained on the labelled target cases",
    ),
    "joint": (
        "joint training",
        "starts from the source model; every batch half source cases, half labelled target cases",
    ),
    "joint_averaged": (
        "joint training averaged with the source",
        "joint training, its weights then averaged with the source model's; BatchNorm statistics of target images",
    ),
    "averaged": (
        "averaged with the source",
        "fine-tuned on the labelled target cases, its weights then averaged with the source model's",
    ),
    "statistics": (
        "re-estimated statistics",
        "the untouched source, its BatchNorm statistics estimated anew on target images",
    ),
    "self_trained": ("self-trained", "starts from the source model, trained on its own confident predictions"),
    "randomised": ("randomised source", "the untouched source, had it been pretrained under randomised contrast"),
    "source_continued": (
        "source continued",
        "a control: trained as long as the adapted arm, without its adaptation term",
    ),
    "source_longer": (
        "source trained longer",
        "a control: the adapted arm's steps on the source's labelled cases alone, without a target image",
    ),
    "oracle": ("oracle", "trained with all of the target's labels: an upper mark, not something to reach"),
}
ARM_ORDER = (
    "scratch",
    "scratch_same",
    "source",
    "fine_tuned",
    "joint",
    "joint_averaged",
    "averaged",
    "head_only",
    "adapted",
    "auto",
)
"""In which order a report lists them."""


def arm_name(arm: str) -> str:
    """An arm's name for people.

    >>> arm_name("statistics"), arm_name("dann")
    ('re-estimated statistics', 'dann')
    """
    return _ARMS[arm][0] if arm in _ARMS else arm.replace("_", " ")


def arm_note(arm: str) -> str:
    """What an arm is, in one clause; empty for names of the user's own.

    >>> arm_note("source")
    'the source model as it is, never trained on this target'
    """
    return _ARMS[arm][1] if arm in _ARMS else ""
