"""What RecBole 1.2.1 needs to run with current NumPy, pandas, SciPy and torch."""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from recllm_bench.errors import BenchError

INSTALL = "pip install --no-deps recbole==1.2.1"


@functools.cache
def load_recbole() -> None:
    """Make RecBole 1.2.1 work with current NumPy, pandas, SciPy and torch; does its work once.

    ``recbole.quick_start`` is never imported: it pulls in an old Ray.

    Raises
    ------
    BenchError
        When RecBole is not installed.
    """
    if find_spec("recbole") is None:
        raise BenchError(f"RecBole is not installed; get it with: {INSTALL}")
    # config/configurator.py compatibility_settings assigns np.float_ and np.unicode_, which NumPy 2 removed;
    # data/interaction.py, evaluator/metrics.py and model/abstract_recommender.py then read the old aliases.
    aliases = {"bool": np.bool_, "int": np.int_, "float": np.float64, "object": np.object_, "long": np.int_}
    for name, value in aliases.items():
        if name not in vars(np):
            setattr(np, name, value)
    from recbole.config.configurator import Config

    Config.compatibility_settings = lambda self: None

    import recbole.data.dataset.dataset as dataset_module
    import recbole.trainer.trainer as trainer_module
    import torch
    from scipy.sparse import dok_matrix

    # model/general_recommender/lightgcn.py, ngcf.py, ncl.py, gcmc.py, spectralcf.py: SciPy 1.13 removed dok._update.
    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, entries: self._dict.update(entries)
    # data/dataset/dataset.py _fill_nan: fillna(inplace=True) on a column leaves the frame as it was in pandas 3.
    dataset_module.Dataset._fill_nan = _fill_nan
    # data/dataset/dataset.py _load_feat: the same for missing sequences, while the columns are still "name:type_seq".
    dataset_module.pd = _Overlay(dataset_module.pd, read_csv=_read_csv)
    # trainer/trainer.py evaluate and resume_checkpoint: torch 2.6 loads weights only, but RecBole's checkpoints hold
    # its Config. Files that RecBole's trainer itself wrote are read in full, and no others.
    trainer_module.torch = _Overlay(torch, load=functools.partial(torch.load, weights_only=False))
    # trainer/trainer.py Trainer.__init__: would leave a folder log_tensorboard/ wherever one happens to be.
    trainer_module.get_tensorboard = lambda logger: _NoBoard()


@contextmanager
def quietly() -> Iterator[None]:
    """Keep RecBole's remarks, which go to the root logger, off the screen; errors are raised, not logged."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Overlay(types.ModuleType):
    """A module as one other module sees it, with a few names replaced."""

    def __init__(self, module: types.ModuleType, **replaced: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(replaced, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


class _NoBoard:
    def add_scalar(self, *values: Any, **options: Any) -> None:
        """Write nothing."""

    add_hparams = add_scalar


def _read_csv(*args: Any, **options: Any) -> Any:
    import pandas

    frame = pandas.read_csv(*args, **options)
    return frame.fillna({name: "" for name in frame.columns if name.endswith("_seq")})


def _fill_nan(self: Any) -> None:
    from recbole.utils.enum_type import FeatureType

    for name in self.feat_name_list:
        feat = getattr(self, name)
        for field in list(feat):
            kind = self.field2type[field]
            if kind == FeatureType.TOKEN:
                feat[field] = feat[field].fillna(0)
            elif kind == FeatureType.FLOAT:
                feat[field] = feat[field].fillna(feat[field].mean())
            else:
                empty = np.zeros(0, np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64)
                feat[field] = [empty if isinstance(value, float) else value for value in feat[field]]
