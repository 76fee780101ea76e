"""A user's own files: ``modules: [my.py]`` in a recipe adds what the file defines to the registry.

A file says what it adds by plain attributes (``METRICS = {"novelty": novelty}``; so ``MODELS, DATASETS, SIMULATORS,
PROTOCOLS, PUBLISHED``), or by calling :func:`register` while it is loaded.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from recllm_bench.errors import BenchError, nearest

KINDS = ("models", "datasets", "simulators", "metrics", "protocols", "published")
"""What can be added, each the name of a registry; in capitals the name of a file's attribute."""

HELD = SimpleNamespace()
"""Objects that were registered, so that each has an address ``module:attribute`` like every other target."""

_PREFIX = "recllm_modules_"
_targets: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
_owners: dict[tuple[str, str], str] = {}
_loading: list[str] = []


def register(kind: str, name: str, target: Any) -> None:
    """Give something a name, for as long as this process lives.

    Parameters
    ----------
    kind : {"models", "datasets", "simulators", "metrics", "protocols", "published"}
        Which registry.
    name : str
        What recipes and the command line call it.
    target : object or str
        The class, function or value itself, or its address ``"module:attribute"``.

    Raises
    ------
    BenchError
        For an unknown kind, a name that cannot be written in a recipe, or one that another file took.
    """
    if kind not in KINDS:
        raise BenchError(f"cannot register '{name}': unknown kind '{kind}'.{nearest(str(kind), KINDS)}")
    if not isinstance(name, str) or not name.strip() or any(sign in name for sign in ":@,\n"):
        raise BenchError(f"cannot register {name!r} under {kind}: a name is text without ':', '@' and ','")
    owner = _loading[-1] if _loading else ""
    other = _owners.get((kind, name), owner)
    if other != owner and "" not in (other, owner):
        raise BenchError(f"'{name}' of {kind} is registered by {other} and by {owner}; rename one of them")
    if not (isinstance(target, str) and ":" in target):
        attribute = f"{kind}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        setattr(HELD, attribute, target)
        target = f"{__name__}:HELD.{attribute}"
    _targets[kind][name] = target
    _owners[kind, name] = owner


def registered(kind: str) -> dict[str, str]:
    """What was registered in this process: name to ``module:attribute``."""
    return dict(_targets.get(kind, {}))


def owner(kind: str, name: str) -> str:
    """The file that registered something; empty for what was registered otherwise."""
    return _owners.get((kind, name), "")


def load_modules(paths: Sequence[str | Path], where: str = "modules") -> list[ModuleType]:
    """Import files and register what they define; a file that is loaded already is not run again.

    Parameters
    ----------
    paths : sequence of str or Path
        Python files by path (from the current folder), or modules by dotted name.
    where : str
        What messages call the place that lists them.

    Returns
    -------
    list of module
        In the order given. A file's module is named by the file and the hash of its source, so that a changed file is
        another module and its classes have other addresses.

    Raises
    ------
    BenchError
        When there is no such file or module, or it fails (with the file and the line).
    """
    if isinstance(paths, (str, Path)) or not isinstance(paths, Sequence):
        raise BenchError(f"{where}: a list of Python files is needed, such as [my.py], got {paths!r}")
    return [_loaded(path, where) for path in paths]


def source_hash(module: ModuleType) -> str:
    """Hash of a module's source, hexadecimal of 16 signs; empty where there is no source file."""
    path = getattr(module, "__file__", None)
    if not path or not Path(path).is_file():
        return ""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _loaded(path: str | Path, where: str) -> ModuleType:
    if not isinstance(path, (str, Path)) or not str(path):
        raise BenchError(f"{where}: {path!r} is no file; name a Python file such as my.py, or a module")
    file = Path(path).expanduser()
    is_file = file.suffix == ".py" or "/" in str(path)
    if is_file and not file.is_file():
        raise BenchError(f"{where}: there is no file {path} in {Path.cwd()}; give its path")
    _loading.append(str(file.resolve()) if is_file else str(path))
    try:
        module = _from_file(file.resolve()) if is_file else importlib.import_module(str(path))
        _register_attributes(module, str(path))
    except ModuleNotFoundError as error:
        raise BenchError(f"{where}: {path}: {error}; install it or put its folder on PYTHONPATH") from error
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        raise BenchError(f"{where}: {place_of(error, file)}; mend it there") from error
    finally:
        _loading.pop()
    return module


def _from_file(file: Path) -> ModuleType:
    stem = "".join(sign if sign.isalnum() else "_" for sign in file.stem)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    name, twins = f"{_PREFIX}{stem}_{digest}", 0
    while (known := sys.modules.get(name)) is not None:
        if known.__file__ == str(file):
            return known
        twins += 1  # the same source in another folder, which may hold other data
        name = f"{_PREFIX}{stem}_{digest}_{twins}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BenchError(f"{file} cannot be read as Python")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up while it runs
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _register_attributes(module: ModuleType, path: str) -> None:
    for kind in KINDS:
        named = getattr(module, kind.upper(), None)
        if named is None:
            continue
        if not isinstance(named, Mapping):
            raise BenchError(f"{path}: {kind.upper()} must be a mapping of names to what they stand for")
        for name, target in named.items():
            register(kind, name, target)


def place_of(error: BaseException, file: Path | None = None) -> str:
    """File, line and message of an error in somebody's module, in one line; the last line of ``file`` where given."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    stack = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in stack if file is not None and Path(frame.filename).name == file.name]
    last = (own or list(stack))[-1]
    return f"{last.filename}:{last.lineno}: {type(error).__name__}: {' '.join(str(error).split())}"
