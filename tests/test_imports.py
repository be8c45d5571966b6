"""Each part of the package imports only what it may: in its sources, in a process and in a bare environment."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.setup_venv import index_environment

ROOT = Path(__file__).resolve().parent.parent

# What each part of tfctr may import from the others. A new part needs a line here.
LEAVES = {"errors", "console", "storage"}
LIBRARY = LEAVES | {"features", "layers"}
MODEL_PARTS = LIBRARY | {"losses", "metrics", "optimizers", "interests", "interactions"}
ALLOWED: dict[str, set[str]] = {
    "tfctr": set(),
    "errors": set(),
    "console": set(),
    "storage": {"errors"},
    "features": LEAVES,
    "metrics": LEAVES,
    "client": LEAVES | {"features"},
    "data": LEAVES | {"features", "metrics"},
    "layers": LEAVES | {"features"},
    "losses": LIBRARY,
    "optimizers": LIBRARY,
    "interests": LIBRARY,
    "interactions": LIBRARY,
    "models": MODEL_PARTS,
    "training": MODEL_PARTS | {"models", "data"},
    "export": MODEL_PARTS | {"models", "training"},
    "project": MODEL_PARTS | {"models", "data"},
    "tuning": MODEL_PARTS | {"models", "data", "training"},
    "report": MODEL_PARTS | {"models", "data", "training", "tuning", "export"},
    "cli": MODEL_PARTS | {"models", "data", "training", "tuning", "export", "client", "project", "report"},
    "__main__": {"cli"},
}
# The parts that run on every Keras backend.
BACKEND_FREE = {"layers", "losses", "interests", "interactions", "models"}
# The two rooms of them that ask what each backend has of its own: its compiler, and its replicas on several devices.
KNOWS_BACKENDS = {"tfctr.layers.fused", "tfctr.layers.replicas"}
BACKENDS = {"tensorflow", "tf_keras", "jax", "torch"}
# The modules that must work with the base install.
BASE_MODULES = ("tfctr", "tfctr.cli", "tfctr.client", "tfctr.features", "tfctr.metrics.reference", "tfctr.console")
HEAVY = ("tensorflow", "keras", "tf_keras", "keras_rs", "tfx", "tfx_bsl", "apache_beam", "jax", "torch", "pandas")
KERAS_2 = ("tensorflow_recommenders", "tf_keras")


@dataclass(frozen=True)
class Import:
    """One import: the importing module, the absolute dotted name, and whether it runs when the module is imported."""

    importer: str
    imported: str
    at_import: bool
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _imports(path: Path) -> Iterator[Import]:
    module = _module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(module, alias.name, at_import, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    base = importlib.util.resolve_name("." * child.level + base, package)
                # `from package import name` may import the submodule package.name.
                yield from (Import(module, f"{base}.{alias.name}", at_import, child.lineno) for alias in child.names)
            else:
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_import and not later and not _is_type_checking(child))

    yield from walk(ast.parse(path.read_text()), True)


SOURCES = {_module_name(path): path for path in sorted((ROOT / "tfctr").rglob("*.py"))}
IMPORTS = {module: list(_imports(path)) for module, path in SOURCES.items()}


def _part(module: str) -> str:
    """The part of tfctr a module belongs to: tfctr.models.presets -> models."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "tfctr"


def _all_imports() -> Iterator[Import]:
    for imports in IMPORTS.values():
        yield from imports


def test_the_sources_are_found() -> None:
    assert {"tfctr", "tfctr.errors", "tfctr.features.spec"} <= set(SOURCES)
    assert any(item.imported.startswith("tfctr.errors") for item in IMPORTS["tfctr.features.spec"])


def test_every_part_is_in_the_table() -> None:
    unknown = {_part(module) for module in SOURCES} - set(ALLOWED)
    assert not unknown, f"say in ALLOWED what these may import: {sorted(unknown)}"


def test_the_table_has_no_cycle() -> None:
    """So that the parts have an order, in which each one imports only from earlier ones."""
    left = {part: set(allowed) for part, allowed in ALLOWED.items()}
    while left:
        free = {part for part, allowed in left.items() if not allowed & set(left)}
        assert free, f"cycle among {sorted(left)}"
        left = {part: allowed for part, allowed in left.items() if part not in free}


def test_imports_inside_tfctr_go_one_way() -> None:
    wrong = []
    for item in _all_imports():
        if item.imported.split(".")[0] != "tfctr":
            continue
        source, target = _part(item.importer), _part(item.imported)
        # `import tfctr` and `from tfctr import __version__` name no part; everyone may read the version.
        if target not in ALLOWED or target in ("tfctr", source):
            continue
        if target not in ALLOWED[source]:
            wrong.append(str(item))
    assert not wrong, "\n".join(wrong)


def test_tfctr_never_imports_the_applications() -> None:
    wrong = [str(item) for item in _all_imports() if item.imported.split(".")[0] in ("pipeline", "serving", "tests")]
    assert not wrong, "\n".join(wrong)


def test_the_model_code_knows_no_backend() -> None:
    wrong = [
        str(item)
        for item in _all_imports()
        if _part(item.importer) in BACKEND_FREE
        and item.importer not in KNOWS_BACKENDS
        and item.imported.split(".")[0] in BACKENDS
    ]
    assert not wrong, "\n".join(wrong)


def test_no_source_imports_keras_2() -> None:
    wrong = [str(item) for item in _all_imports() if item.imported.split(".")[0] in KERAS_2]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_training_export_and_server_load_no_keras_2() -> None:
    code = f"""
import sys, tfctr.cli, tfctr.client, tfctr.export.saved_model, tfctr.models, tfctr.training.run, serving.server
print(*(name for name in {KERAS_2!r} if name in sys.modules))
"""
    # TensorFlow Transform, which other tests import, asks for Keras 2 in the environment of its process.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stdout + done.stderr


@pytest.mark.parametrize("root", BASE_MODULES)
def test_base_modules_import_only_base_distributions(root: str) -> None:
    """Follows the imports that run when the module is imported, through tfctr's own modules."""
    if root not in SOURCES:
        pytest.fail(f"{root} does not exist")
    waiting, seen, wrong = [root], set(), []
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if "." in module:
            waiting.append(module.rpartition(".")[0])  # importing a.b imports a
        for item in IMPORTS[module]:
            if not item.at_import:
                continue
            if item.imported.split(".")[0] == "tfctr":
                waiting.extend(name for name in (item.imported, item.imported.rpartition(".")[0]) if name in SOURCES)
            elif not _is_provided(item.imported, _modules_of("")):
                wrong.append(str(item))
    assert not wrong, "\n".join(wrong)


def test_base_modules_import_where_nothing_heavy_can(record_property: pytest.RecordProperty) -> None:
    """In a process of its own, in which importing TensorFlow, Keras, TFX or pandas fails."""
    code = f"""
import importlib, sys, time
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
started = time.perf_counter()
for name in {BASE_MODULES!r}:
    importlib.import_module(name)
print(time.perf_counter() - started)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    seconds = float(done.stdout.split()[-1])
    record_property("import_seconds", seconds)
    print(f"import of {', '.join(BASE_MODULES)}: {seconds:.2f} s")


@cache
def _modules_of(*extras: str) -> frozenset[str]:
    """Return the modules of the distributions that setup.py names for the base ("") and for some extras."""
    needed = map(Requirement, importlib.metadata.requires("tfctr") or [])
    names = {one.name for one in needed if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)}
    files = [file for name in names for file in importlib.metadata.files(name) or []]
    found = [file.parent.parts if file.name == "__init__.py" else (*file.parent.parts, file.stem) for file in files]
    return frozenset(".".join(parts) for parts, file in zip(found, files, strict=True) if file.suffix == ".py")


def _is_provided(imported: str, modules: frozenset[str]) -> bool:
    """Whether a module is in the standard library, or whether it or a package around it is among `modules`."""
    parts = imported.split(".")
    return parts[0] in sys.stdlib_module_names or any(
        ".".join(parts[:count]) in modules for count in range(1, len(parts) + 1)
    )


# The extras whose distributions each directory may import, besides those of the base.
EXTRAS_OF = {
    "tfctr": ("data", "train", "pipeline", "redis", "metrics"),
    "pipeline": ("pipeline",),
    "serving": ("serving", "tracing"),
    "examples": ("retrieval",),
    "tests": ("data", "pipeline", "redis", "metrics", "retrieval", "tracing", "dev"),
    "benchmarks": ("pipeline", "retrieval", "dev"),
}
# Benchmarks have peers in PyTorch, which run in an environment of their own.
ELSEWHERE = "torch_*.py"
OWN = {*EXTRAS_OF, "scripts"}


@pytest.mark.slow
@pytest.mark.parametrize("directory", EXTRAS_OF)
def test_every_import_is_of_a_declared_distribution(directory: str) -> None:
    """A distribution must be declared even if it is there anyway, as a dependency of another one."""
    provided = _modules_of("", *EXTRAS_OF[directory])
    wrong = [
        str(item)
        for path in sorted((ROOT / directory).rglob("*.py"))
        if not path.match(ELSEWHERE)
        for item in _imports(path)
        if item.imported.split(".")[0] not in OWN and not _is_provided(item.imported, provided)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_lock_satisfies_the_build_definition() -> None:
    """Every requirement of setup.py, with the extras, is installed in a version that it allows."""
    wrong = []
    for line in importlib.metadata.requires("tfctr") or []:
        requirement = Requirement(line)
        installed = importlib.metadata.version(requirement.name)
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{line}: {installed} is installed")
    assert not wrong, "\n".join(wrong)


@pytest.mark.e2e
def test_the_base_install_has_a_working_command_line(tmp_path: Path) -> None:
    """`pip install` from a copy of the sources installs no TensorFlow, and the command can validate features."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("tfctr", "pipeline", "serving"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    lock = ROOT / "requirements.lock"
    install = [Path(sys.executable).parent / "uv", "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    pinned = ["--constraints", lock, "--build-constraints", lock]
    environment = index_environment(sys.executable)
    done = subprocess.run([*install, *pinned, source], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [venv / "bin" / command[0], *command[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=clean,
            check=False,
        )

    installed = run("python", "-c", "import importlib.metadata as m; print(*(d.name for d in m.distributions()))")
    assert not {"tensorflow", "keras", "tfx", "pandas"} & set(installed.stdout.split())
    helped = run("tfctr", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "features" in helped.stdout
    validated = run("tfctr", "features", "validate", str(ROOT / "configs" / "synthetic.yaml"))
    assert validated.returncode == 0, validated.stdout + validated.stderr
    typed = run(
        "python", "-c", "import tfctr, pathlib; print((pathlib.Path(tfctr.__file__).parent / 'py.typed').exists())"
    )
    assert typed.stdout.strip() == "True"
