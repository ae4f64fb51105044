"""Warnings about discriminators that separate real and fake patches too well."""

import math

from authface_train.training.loss_guard import DiscriminatorMonitor


def test_monitor_warns_once_until_the_accuracy_falls_again(caplog):
    monitor = DiscriminatorMonitor()

    def check_steps(first_step, accuracy):
        """Run one window of steps and return what was logged."""
        caplog.clear()
        for step in range(first_step, first_step + DiscriminatorMonitor.WINDOW):
            monitor.check(step, {"accuracy_eyes": accuracy, "accuracy_mouth": 0.7, "loss": math.pi})
        return caplog.text

    assert check_steps(0, 0.9) == ""
    warnings = check_steps(200, 1.0)
    assert warnings.count("eyes discriminator") == 1
    assert "mouth" not in warnings
    assert check_steps(400, 1.0) == ""
    check_steps(600, 0.6)
    assert "eyes discriminator" in check_steps(800, 1.0)
