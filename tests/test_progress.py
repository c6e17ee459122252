"""A log line says how many pieces are done, and guesses the rest from the share of the work."""

import logging

import pytest

from smgrid import progress


@pytest.mark.parametrize("share, says", [(None, "about 30 s to go"), (lambda: 0.5, "about 10 s to go")])
def test_the_rest_follows_the_share(monkeypatch, caplog, share, says):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    part = share or (lambda: 1 / 4)
    with caplog.at_level(logging.INFO, "smgrid"), progress._log_lines("trials", 4, lambda: 1) as say:
        say(part())
    assert f"trials: 1 of 4 after 10 s, {says}" in caplog.text


def test_nothing_done_promises_nothing(caplog):
    with caplog.at_level(logging.INFO, "smgrid"), progress._log_lines("trials", 4, lambda: 0) as say:
        say(0.0)
    assert "0 of 4" in caplog.text and "to go" not in caplog.text


@pytest.mark.parametrize("shown", [True, False])
def test_a_body_runs_under_any_display(shown, capsys):
    asked = []
    with progress.shown(shown, "trials", 0, lambda: 0, lambda: asked.append(1) or 0.5):
        pass
    assert bool(asked) == shown
    assert ("trials" in capsys.readouterr().err) == shown
