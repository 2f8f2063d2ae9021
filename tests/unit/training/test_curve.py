from __future__ import annotations

from scones.training.curve import curve_chart, training_curve


def test_the_curve_is_read_from_the_log_of_the_algorithm() -> None:
    log = [
        "[11/21/2026 00:00:01 INFO 14] Epoch[0] Train-accuracy=0.500000",
        "[11/21/2026 00:00:01 INFO 14] Epoch[0] Train-top_k_accuracy_2=1.000000",
        "[11/21/2026 00:00:02 INFO 14] Epoch[0] Validation-accuracy=0.600000",
        "[11/21/2026 00:00:09 INFO 14] Epoch[1] Validation-accuracy=0.100000",
        "[11/21/2026 00:00:19 INFO 14] Epoch[1] Validation-accuracy=0.900000",
    ]
    assert training_curve(log) == {"train": [(0, 0.5)], "validation": [(0, 0.6), (1, 0.9)]}
    assert curve_chart(training_curve(["nothing"])) == ""
