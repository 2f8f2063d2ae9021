"""The built-in algorithm's hyperparameters: what is accepted, and what each refusal says."""

import pytest

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.hyperparameters import NO_EFFECT, RULES, read_hyperparameters

REQUIRED = {"num_classes": "2", "num_training_samples": "1000"}


def test_defaults_are_the_built_in_ones() -> None:
    chosen = read_hyperparameters(REQUIRED)
    assert (chosen.epochs, chosen.mini_batch_size, chosen.image_shape) == (30, 32, (3, 224, 224))
    assert (chosen.num_layers, chosen.learning_rate, chosen.optimizer) == (152, 0.1, "sgd")
    assert (chosen.early_stopping, chosen.early_stopping_min_epochs, chosen.early_stopping_patience) == (False, 10, 5)
    assert chosen.without_effect == {}


def test_every_hyperparameter_is_accepted_at_once() -> None:
    given = {
        **REQUIRED, "num_classes": "10", "num_layers": "20", "use_pretrained_model": "0", "epochs": "35",
        "learning_rate": "0.01", "lr_scheduler_step": "10, 20", "lr_scheduler_factor": "0.1", "optimizer": "nag",
        "momentum": "0.9", "weight_decay": "1e-4", "beta_1": "0.9", "beta_2": "0.999", "eps": "1e-8", "gamma": "0.9",
        "mini_batch_size": "64", "image_shape": "3, 32,32", "resize": "40", "augmentation_type": "crop_color",
        "top_k": "3", "early_stopping": "True", "early_stopping_min_epochs": "5", "early_stopping_patience": "3",
        "early_stopping_tolerance": "0.01", "checkpoint_frequency": "1", "multi_label": "0", "use_weighted_loss": "0",
        "kv_store": "dist_sync", "precision_dtype": "float16",
    }  # fmt: skip
    assert set(given) == set(RULES), "a rule is not covered by this test"
    chosen = read_hyperparameters(given)
    assert chosen.image_shape == (3, 32, 32)
    assert chosen.lr_scheduler_step == (10, 20)
    assert chosen.early_stopping is True
    assert set(chosen.without_effect) == set(NO_EFFECT)


def test_names_sagemaker_itself_adds_are_passed_over() -> None:
    assert (
        "_tuning_objective_metric"
        not in read_hyperparameters({**REQUIRED, "_tuning_objective_metric": "validation:accuracy"}).values
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rte": "0.1"}, r"Additional hyperparameters are not allowed \('learning_rte' was unexpected\)"),
        ({"num_classes": None}, r"No value\(s\) were specified for 'num_classes' which are required"),
        ({"num_classes": "1"}, "'num_classes' is '1'; it must be an integer >= 2"),
        ({"num_classes": "two"}, "'num_classes' is 'two'; it must be an integer"),
        ({"num_classes": 2}, "'num_classes' must be a string"),
        ({"num_training_samples": "0"}, "'num_training_samples'"),
        ({"num_layers": "19"}, "'num_layers' is '19'; it must be one of 18, 34"),
        ({"num_layers": "20", "use_pretrained_model": "1"}, "'num_layers' is 20; with use_pretrained_model=1"),
        ({"epochs": "0"}, "'epochs'"),
        ({"epochs": "1e2"}, "'epochs'"),
        ({"learning_rate": "1.5"}, "'learning_rate' is '1.5'; it must be a number from 0 to 1"),
        ({"learning_rate": "nan"}, "'learning_rate'"),
        ({"lr_scheduler_step": "10,"}, "'lr_scheduler_step'"),
        ({"optimizer": "lion"}, "'optimizer' is 'lion'; it must be one of sgd, adam, rmsprop, nag"),
        ({"mini_batch_size": "0"}, "'mini_batch_size'"),
        ({"image_shape": "1,32,32"}, "'image_shape' is '1,32,32'"),
        ({"image_shape": "3,32"}, "'image_shape'"),
        ({"image_shape": "3,4,4"}, "sides from 8"),
        ({"image_shape": "3,64,64", "resize": "32"}, "'resize' is 32"),
        ({"augmentation_type": "flip"}, "'augmentation_type'"),
        ({"top_k": "2"}, r"'top_k' is 2; it must be below num_classes \(2\)"),
        ({"early_stopping": "maybe"}, "'early_stopping' is 'maybe'; it must be 0 or 1"),
        ({"multi_label": "1"}, "'multi_label' is 1"),
        ({"kv_store": "local"}, "'kv_store'"),
        ({"precision_dtype": "bfloat16"}, "'precision_dtype'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change: dict[str, str | None], said: str) -> None:
    given = {name: value for name, value in {**REQUIRED, **change}.items() if value is not None}
    with pytest.raises(AlgorithmError, match=said):
        read_hyperparameters(given)
