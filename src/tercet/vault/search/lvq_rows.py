"""Which rows belong to some numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class ByNumber:
    """Finds rows by number.

    Attributes
    ----------
    ascending:
        int64 (n,): the numbers in order.
    order:
        int32 (n,): the row of each.
    """

    def __init__(self, numbers: Ints) -> None:
        order = np.argsort(numbers, kind="stable")
        self.ascending, self.order = numbers[order], order.astype(np.int32)
        self.different = not bool((self.ascending[1:] == self.ascending[:-1]).any())

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.ascending.nbytes + self.order.nbytes

    def rows(self, numbers: Ints) -> Ints:
        """All rows of some numbers, ascending; a number that is not here has none."""
        wanted = np.sort(numbers)
        wanted = wanted[np.append(True, wanted[1:] != wanted[:-1])[: len(wanted)]]  # np.unique takes 20 times as long
        low = np.searchsorted(self.ascending, wanted)
        if self.different:
            here = low < len(self.ascending)
            here[here] = self.ascending[low[here]] == wanted[here]
            return np.sort(self.order[low[here]]).astype(np.int64)
        lengths = np.searchsorted(self.ascending, wanted, "right") - low
        ends = np.cumsum(lengths)
        places = np.repeat(low - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
        return np.sort(self.order[places]).astype(np.int64)
