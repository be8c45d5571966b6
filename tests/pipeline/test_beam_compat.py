"""Beam's workers can import TFDV with and without `tfx_bsl.arrow.sql_util`, which not every tfx-bsl has."""

import subprocess
import sys

CODE = """
import sys
import pipeline.beam_compat
{setup}
import tfx_bsl.arrow.sql_util as sql_util
print(sql_util.{probe})
"""


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_workers_import_tfdv() -> None:
    done = run(
        "import pipeline.beam_compat, tensorflow_data_validation as t; print('tfx' in __import__('sys').modules)"
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "False"


def test_a_real_module_wins() -> None:
    setup = """
import importlib.abc, importlib.machinery
class Real(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "tfx_bsl.arrow.sql_util" else None
    def exec_module(self, module):
        module.real = "the real one"
sys.meta_path.insert(0, Real())
"""
    done = run(CODE.format(setup=setup, probe="real"))

    assert done.stdout.strip() == "the real one", done.stderr[-2000:]


def test_sql_slices_are_refused_in_words() -> None:
    done = run(CODE.format(setup="", probe="RecordBatchSQLSliceQuery('', None)"))

    assert done.returncode != 0
    assert "NotImplementedError: slicing statistics by SQL needs tensorflow-data-validation 1.17" in done.stderr
