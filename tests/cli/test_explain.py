"""Options of ``gpunet explain``."""

from __future__ import annotations

import re

import pytest

from gpunet.cli.main import main
from gpunet.tools.textbook import TEXTBOOK_ACTIVATIONS


def test_negative_numbers_are_values_not_options(capsys):
    assert main(["explain", "--weights", "-0.5,1", "--biases", "-1,-.5", "--input", "-2", "--target", "-1"]) == 0
    assert "w1 = -0.5" in capsys.readouterr().out


def test_help_lists_every_activation(capsys):
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    assert set(TEXTBOOK_ACTIVATIONS) <= set(re.findall(r"\w+", capsys.readouterr().out))
