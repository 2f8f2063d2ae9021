"""The built-in algorithm's hyperparameters: every one accepted, each checked as SageMaker does.

Names, ranges and defaults: AWS documentation, "Image Classification Hyperparameters". What only steers a deep network
on GPUs is checked and then has no effect here; `NO_EFFECT` names those, and the log says which of them were given.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError

NO_EFFECT = {
    "num_layers": "the only network here is the pretrained one, and it is of one size",
    "learning_rate": "the model is solved in closed form",
    "lr_scheduler_step": "the model is solved in closed form",
    "lr_scheduler_factor": "the model is solved in closed form",
    "optimizer": "the model is solved in closed form",
    "momentum": "the model is solved in closed form",
    "beta_1": "the model is solved in closed form",
    "beta_2": "the model is solved in closed form",
    "eps": "the model is solved in closed form",
    "gamma": "the model is solved in closed form",
    "kv_store": "training runs in one process",
    "precision_dtype": "everything is computed in float32",
    "checkpoint_frequency": "only the best model is stored",
    "use_weighted_loss": "it concerns multi_label=1 alone",
}

_PRETRAINED_LAYERS = (18, 34, 50, 101, 152, 200)
# MXNet's networks take nothing smaller; the local features need a few pixels to look at.
_LEAST_SIDE, _LARGEST_SIDE = 8, 1024


def _integer(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,12}", text.strip()):
            raise ValueError("an integer")
        value = int(text)
        if value < low:
            raise ValueError(f"an integer >= {low}")
        return value

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        wanted = f"a number from {low:g} to {high:g}"
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not low <= value <= high:
            raise ValueError(wanted)
        return value

    return read


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.strip() not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text.strip()

    return read


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true"):
        return True
    if lowered in ("0", "false"):
        return False
    raise ValueError("0 or 1")


def _layers(text: str) -> int:
    return int(_choice("18", "34", "50", "101", "152", "200", "20", "32", "44", "56", "110")(text))


def _steps(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*", text):
        raise ValueError('comma-separated epochs, for example "10,20"')
    return tuple(int(step) for step in text.split(","))


def _shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    wanted = f'"3,height,width" with sides from {_LEAST_SIDE} to {_LARGEST_SIDE}'
    if match is None:
        raise ValueError(wanted)
    channels, height, width = (int(side) for side in match.groups())
    if channels != 3 or not all(_LEAST_SIDE <= side <= _LARGEST_SIDE for side in (height, width)):
        raise ValueError(wanted)
    return channels, height, width


@dataclass(frozen=True)
class _Rule:
    read: Callable[[str], Any]
    default: Any = None
    required: bool = False


RULES: dict[str, _Rule] = {
    "num_classes": _Rule(_integer(2), required=True),
    "num_training_samples": _Rule(_integer(1), required=True),
    "num_layers": _Rule(_layers, 152),
    "use_pretrained_model": _Rule(_flag, False),
    "epochs": _Rule(_integer(1), 30),
    "learning_rate": _Rule(_number(0, 1), 0.1),
    "lr_scheduler_step": _Rule(_steps),
    "lr_scheduler_factor": _Rule(_number(0, 1), 0.1),
    "optimizer": _Rule(_choice("sgd", "adam", "rmsprop", "nag"), "sgd"),
    "momentum": _Rule(_number(0, 1), 0.9),
    "weight_decay": _Rule(_number(0, 1), 0.0001),
    "beta_1": _Rule(_number(0, 1), 0.9),
    "beta_2": _Rule(_number(0, 1), 0.999),
    "eps": _Rule(_number(0, 1), 1e-8),
    "gamma": _Rule(_number(0, 1), 0.9),
    "mini_batch_size": _Rule(_integer(1), 32),
    "image_shape": _Rule(_shape, (3, 224, 224)),
    "resize": _Rule(_integer(2)),
    "augmentation_type": _Rule(_choice("crop", "crop_color", "crop_color_transform")),
    "top_k": _Rule(_integer(2)),
    "early_stopping": _Rule(_flag, False),
    "early_stopping_min_epochs": _Rule(_integer(1), 10),
    "early_stopping_patience": _Rule(_integer(1), 5),
    "early_stopping_tolerance": _Rule(_number(0, 1), 0.0),
    "checkpoint_frequency": _Rule(_integer(1)),
    "multi_label": _Rule(_flag, False),
    "use_weighted_loss": _Rule(_flag, False),
    "kv_store": _Rule(_choice("dist_sync", "dist_async")),
    "precision_dtype": _Rule(_choice("float32", "float16"), "float32"),
}


@dataclass(frozen=True)
class Hyperparameters:
    """Checked values by name, with what was given by the caller (and not by default)."""

    values: dict[str, Any]
    given: frozenset[str] = field(default_factory=frozenset)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def without_effect(self) -> dict[str, str]:
        """Hyperparameters the caller gave that change nothing here, with the reason."""
        return {name: reason for name, reason in NO_EFFECT.items() if name in self.given}


def read_hyperparameters(raw: dict[str, Any]) -> Hyperparameters:
    """Check `hyperparameters.json` (a flat map of strings).

    Names that begin with `_` are SageMaker's own (`_tuning_objective_metric`, ...) and are passed over.

    Raises:
        AlgorithmError: an unknown or missing name, a value outside its range, or a combination that cannot be.
    """
    raw = {name: value for name, value in raw.items() if not name.startswith("_")}
    unknown = sorted(set(raw) - set(RULES))
    if unknown:
        names = ", ".join(repr(name) for name in unknown)
        were = "was" if len(unknown) == 1 else "were"
        raise AlgorithmError(
            f"Additional hyperparameters are not allowed ({names} {were} unexpected). Known: {', '.join(sorted(RULES))}"
        )
    missing = [name for name, rule in RULES.items() if rule.required and name not in raw]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise AlgorithmError(f"No value(s) were specified for {names} which are required hyperparameter(s)")
    values: dict[str, Any] = {}
    for name, rule in RULES.items():
        if name not in raw:
            values[name] = rule.default
            continue
        if not isinstance(raw[name], str):
            raise AlgorithmError(
                f"Hyperparameter '{name}' must be a string, as SageMaker sends it; it is {raw[name]!r}"
            )
        try:
            values[name] = rule.read(raw[name])
        except ValueError as error:
            raise AlgorithmError(f"Hyperparameter '{name}' is {raw[name][:80]!r}; it must be {error}") from None
    _check_together(values, frozenset(raw))
    return Hyperparameters(values, frozenset(raw))


def _check_together(values: dict[str, Any], given: frozenset[str]) -> None:
    if values["multi_label"]:
        raise AlgorithmError(
            "Hyperparameter 'multi_label' is 1: the local algorithm gives each image one class; leave it 0"
        )
    if values["use_pretrained_model"] and values["num_layers"] not in _PRETRAINED_LAYERS:
        raise AlgorithmError(
            f"Hyperparameter 'num_layers' is {values['num_layers']}; with use_pretrained_model=1 it must be one of"
            f" {', '.join(map(str, _PRETRAINED_LAYERS))}, for which SageMaker has pretrained networks"
        )
    if values["top_k"] is not None and values["top_k"] >= values["num_classes"]:
        raise AlgorithmError(
            f"Hyperparameter 'top_k' is {values['top_k']}; it must be below num_classes ({values['num_classes']})"
        )
    if values["resize"] is not None and values["resize"] < max(values["image_shape"][1:]):
        raise AlgorithmError(
            f"Hyperparameter 'resize' is {values['resize']}; images are cropped to image_shape after it,"
            f" so it must be at least {max(values['image_shape'][1:])}"
        )
