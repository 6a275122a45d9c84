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

FOR_PAIRS: Mapping[str, float] = MappingProxyType(
    {"adamw": 2e-3, "adafactor": 0.3, "apollo-mini": 1e-3, "sgd-sai": 4e-3}
)
"""Learning rates for low-rank pairs, where the published one does not teach them in a few hundred steps.

Pairs bear more than whole weights do, so AdamW's is twice torch's. Adafactor's is relative to a parameter's own size,
and B begins at zero. APOLLO-Mini's factor of 128 is for matrices whose lesser side is hundreds, not a rank. SGD-SaI's
step grows with the root of a tensor's size: at 0.01 it diverges.
"""
