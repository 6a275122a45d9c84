"""Optimisers for training memories: the field's, and published ones that keep little state."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tercet.parametric.optim.apollo import Apollo, ApolloMini
from tercet.parametric.optim.base import OptimizerSpec
from tercet.parametric.optim.galore import GaLore
from tercet.parametric.optim.sgd_sai import SgdSai
from tercet.parametric.optim.standard import Adafactor, AdamW

OPTIMIZERS: Mapping[str, type[OptimizerSpec]] = MappingProxyType(
    {
        "adamw": AdamW,
        "adafactor": Adafactor,
        "galore": GaLore,
        "apollo": Apollo,
        "apollo-mini": ApolloMini,
        "sgd-sai": SgdSai,
    }
)
"""Name -> optimiser; call it for the published hyper-parameters, or with others."""
