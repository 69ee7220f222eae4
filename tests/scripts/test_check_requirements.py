"""What ``requirements-cuda.txt`` brings leaves the installed PyTorch alone, and a file that does not is found out."""

from __future__ import annotations

import sys

import pytest
from check_requirements import ROOT, dry_run, main, planned

from gsz.errors import UserError


def test_the_cuda_requirements_replace_no_pytorch():
    try:
        plan = planned(dry_run(ROOT / "requirements-cuda.txt"))
    except UserError as error:
        if "from versions: none" not in str(error):
            raise
        pytest.skip(f"there is no package index to ask: {error}")
    assert "torch" not in plan
    assert all(not package.startswith("nvidia-") for package in plan)


def test_a_file_that_replaces_pytorch_is_named_with_what_it_brings(monkeypatch, capsys):
    torchvision, torch = (
        {"metadata": {"name": name, "version": version}}
        for name, version in (("torchvision", "0.29.2"), ("torch", "2.14.0"))
    )
    monkeypatch.setattr("check_requirements.dry_run", lambda file: {"install": [torchvision, torch]})
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "requirements-cuda.txt: REPLACES PyTorch by 2.14.0" in capsys.readouterr().out


def test_what_cannot_be_solved_is_one_line(tmp_path):
    """Two versions of one package, both of them impossible: pip needs no index to find that out."""
    file = tmp_path / "impossible.txt"
    file.write_text("packaging==1.0\npackaging==2.0\n")
    with pytest.raises(UserError, match=r"^impossible\.txt: ERROR: ") as error:
        dry_run(file)
    assert "\n" not in str(error.value) and sys.executable not in str(error.value)
