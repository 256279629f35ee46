"""Test that the constraints of the oldest dependencies name each dependency at its lower bound."""

from __future__ import annotations

import pytest

from tests import oldest


def test_lower_bound_becomes_a_constraint(tmp_path, monkeypatch):
    project = tmp_path / "pyproject.toml"
    monkeypatch.setattr(oldest, "PROJECT", project)
    listed = (
        '[project]\nname = "p"\ndependencies = ["a-b>=1.2,<2"]\n[project.optional-dependencies]\nx = ["c[d]>=3", {}]\n'
    )
    project.write_text(listed.format('"p[y]"'))
    assert oldest.constraints() == ["a-b==1.2", "c==3"]
    project.write_text(listed.format('"e"'))
    with pytest.raises(ValueError, match="'e' has no lower bound"):
        oldest.constraints()


def test_each_dependency_of_the_project_has_a_lower_bound():
    assert {"msgspec", "aiohttp", "pytest"} <= {one.partition("==")[0] for one in oldest.constraints()}
