"""Kernels on disk: kept between processes, dropped when a source changed, done without where nothing is writable."""

import os
import subprocess
import sys
import textwrap

import pytest

MODULE = """
    from model.compiled import compiled
    import helper

    @compiled(sources=[helper.__file__])
    def kernel(x):
        return helper.twice(x)
"""
HELPER = """
    from numba import njit

    @njit
    def twice(x):
        return {factor} * x
"""
SCRIPT = "import kernels; print(kernels.kernel(3), sum(kernels.kernel.stats.cache_hits.values()))"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a kernel and the helper it calls; run() answers (result, kernels found on disk)."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.getcwd()]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "kernels.py").write_text(textwrap.dedent(MODULE))

    def write_helper(factor, age_seconds):
        helper = tmp_path / "helper.py"
        helper.write_text(textwrap.dedent(HELPER).format(factor=factor))
        now = helper.stat().st_mtime
        os.utime(helper, (now - age_seconds, now - age_seconds))

    def run(**environment):
        command = [sys.executable, "-c", SCRIPT]
        result = subprocess.run(
            command, env=os.environ | environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return tuple(int(word) for word in result.stdout.split())

    run.write_helper = write_helper
    write_helper(2, age_seconds=100)
    return run


def test_the_second_process_finds_the_code(project):
    assert project() == (6, 0)
    assert project() == (6, 1)


def test_a_changed_helper_throws_the_code_away(project):
    """Story: Numba watches the kernel's own file only, and kept running yesterday's exp2."""
    assert project() == (6, 0)
    project.write_helper(5, age_seconds=-5)
    assert project() == (15, 0)


def test_works_where_nothing_can_be_written(project):
    assert project(NUMBA_CACHE_LOCATOR_CLASSES="NoLocator") == (6, 0)
