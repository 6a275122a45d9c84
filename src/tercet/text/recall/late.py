"""Late interaction over token states of 128 bits: how well is each word of the question met somewhere in a text?

    s(q, d) = mean over tokens i of q of max over tokens j of d of sim(q_i, d_j)
    sim(a, b) = max(0, 1 - 2 * hamming(a, b) / 128)

(Khattab and Zaharia 2020, ColBERT, here without training.) A token's last hidden state is centred and projected on the
first 128 principal axes of the encoder's states; the signs are its code. Sixteen bytes a token; stop words and
punctuation are not kept, so a turn of a conversation costs about 220 bytes. `benchmarks/fit_projection.py` fitted the
axes, on glosses of an English dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numkong
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]

BITS = 128
LIMBS = BITS // 64
BYTES = BITS // 8


@dataclass(frozen=True, eq=False)
class Codes:
    """The coded tokens of several texts, one after another.

    `bits` is uint64 (tokens, 2); text i owns `bits[offsets[i]:offsets[i + 1]]`, so `offsets` is (texts + 1,) and
    begins with 0.
    """

    bits: Bits
    offsets: Ints

    @classmethod
    def read(cls, blob: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> Codes:
        """What `Coder.encode` wrote for each text, found in `blob` from byte to byte (equal for a text without)."""
        bits = np.frombuffer(blob, "<u8").reshape(-1, LIMBS)
        counts = (ends - starts) // BYTES
        offsets = np.concatenate([[0], np.cumsum(counts)])
        if len(starts) and (starts[1:] == ends[:-1]).all():
            return cls(bits[starts[0] // BYTES : ends[-1] // BYTES], offsets)
        return cls(bits[np.arange(offsets[-1]) + np.repeat(starts // BYTES - offsets[:-1], counts)], offsets)


@dataclass(frozen=True)
class Coder:
    """Codes token states of one embedding model.

    `mean` is float32 (dim,), `axes` float32 (dim, 128). `dropped` holds the ids of tokens that are not kept of a text
    (punctuation, stop words), `asked` those that are not asked for besides (words such as "mention" or "kind", which
    belong to the asking).
    """

    mean: Floats
    axes: Floats
    dropped: npt.NDArray[np.int32]
    asked: npt.NDArray[np.int32]

    @classmethod
    def load(cls, file: Path | None = None) -> Coder:
        """The one shipped for all-MiniLM-L6-v2, or another. About 3 ms: keep it."""
        with np.load(file or Path(__file__).with_name("minilm_axes.npz"), allow_pickle=False) as found:
            return cls(
                mean=found["mean"].astype(np.float32),
                axes=found["axes"].astype(np.float32),
                dropped=found["dropped"],
                asked=found["asked"],
            )

    @cached_property
    def _lost(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        text = np.zeros(1 + int(max(self.dropped.max(initial=0), self.asked.max(initial=0))), np.bool_)
        text[self.dropped] = True
        question = text.copy()
        question[self.asked] = True
        return text, question

    def encode(self, states: Floats, token_ids: npt.NDArray[np.int32]) -> bytes:
        """The code of a text's tokens: float32 (tokens, dim) and their ids to 16 bytes for each that is kept."""
        return self._code(states[~self._is_in(self._lost[0], token_ids)]).astype("<u8").tobytes()

    def question(self, states: Floats, token_ids: npt.NDArray[np.int32]) -> Bits:
        """uint64 (kept tokens, 2); a question of dropped tokens only keeps them all."""
        lost = self._is_in(self._lost[1], token_ids)
        return self._code(states if lost.all() else states[~lost])

    @cached_property
    def _packed(self) -> numkong.PackedMatrix:
        return numkong.dots_pack(np.ascontiguousarray(self.axes.T), dtype="f32")

    def _code(self, states: Floats) -> Bits:
        # Not numpy's product: its sums depend on how many rows there are, and a sign must not.
        signs = np.asarray(numkong.dots_packed(np.ascontiguousarray(states - self.mean), self._packed)) > 0
        return (
            np.packbits(signs, axis=1, bitorder="little").view("<u8").reshape(-1, LIMBS).astype(np.uint64, copy=False)
        )

    @staticmethod
    def _is_in(table: npt.NDArray[np.bool_], ids: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        return (ids < len(table)) & table[np.minimum(ids, len(table) - 1)]


def similarity(question: Bits, codes: Codes) -> Floats:
    """float32 (question tokens, texts): each question token's best with each text, in [0, 1]; 0 for a text without."""
    found = np.zeros((len(question), len(codes.offsets) - 1), np.float32)
    full = np.flatnonzero(np.diff(codes.offsets))
    if len(full) and len(question):
        apart = np.bitwise_count(question[:, None, 0] ^ codes.bits[None, :, 0])
        for limb in range(1, LIMBS):
            apart += np.bitwise_count(question[:, None, limb] ^ codes.bits[None, :, limb])
        least = np.minimum.reduceat(apart, codes.offsets[:-1][full], axis=1)
        found[:, full] = np.maximum(1 - least.astype(np.float32) * np.float32(2 / BITS), 0)
    return found
